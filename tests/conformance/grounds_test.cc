// SPDX-License-Identifier: Apache-2.0
// Which providers this run covers.
#include <string>

#include "tests/conformance/environment.h"

namespace verbena::conformance {
namespace {

class Grounds : public testing::TestWithParam<ProviderEntry> {};
INSTANTIATE_TEST_SUITE_P(All, Grounds,
                         testing::ValuesIn(AllProviders().begin(), AllProviders().end()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Grounds, EveryProviderHasOne) {
  // Each provider that the library has, on this machine.
  // Expect: a device that can be used, so that the suite ran on it; else the reason, aloud.
  if (const std::string why = WhyUnusable(GetParam()); !why.empty()) {
    GTEST_SKIP() << "no device: the whole suite is left out for " << GetParam().name << ": " << why;
  }
}

}  // namespace
}  // namespace verbena::conformance
