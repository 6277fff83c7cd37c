// SPDX-License-Identifier: Apache-2.0
// Every enumerator has a name, all names of an enum differ, and what is beyond the last is "?": an
// enumerator that is added without a name fails here.
#include <functional>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "transport/capabilities.h"
#include "transport/events.h"
#include "transport/options.h"
#include "transport/qp_state.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena {
namespace {

struct Table {
  const char* name;
  int count;
  std::function<std::string(int)> text;
  std::string beyond = "?";
};

template <typename Enum>
std::function<std::string(int)> Of(const char* (*function)(Enum)) {
  return [function](int value) { return std::string(function(static_cast<Enum>(value))); };
}

class Names : public testing::TestWithParam<Table> {};

TEST_P(Names, AreCompleteAndDistinct) {
  std::set<std::string> seen;
  for (int value = 0; value < GetParam().count; ++value) {
    const std::string text = GetParam().text(value);
    EXPECT_GT(text.size(), 1u) << value;
    EXPECT_TRUE(seen.insert(text).second) << text << " names two values";
  }
  EXPECT_EQ(GetParam().text(GetParam().count).substr(0, GetParam().beyond.size()),
            GetParam().beyond);
}

INSTANTIATE_TEST_SUITE_P(
    All, Names,
    testing::Values(
        Table{"QpState", kQpStateCount, Of(&QpStateName)},
        Table{"QpType", static_cast<int>(QpType::kUc) + 1, Of(&QpTypeName)},
        Table{"EventType", static_cast<int>(EventType::kDeviceFatal) + 1, Of(&EventTypeName)},
        Table{"WcStatus", static_cast<int>(WcStatus::kGeneralError) + 1, Of(&WcStatusName)},
        Table{"WcStatusText", static_cast<int>(WcStatus::kGeneralError) + 1, Of(&WcStatusText),
              "not a status"},
        Table{"WcOpcode", static_cast<int>(WcOpcode::kReceiveWriteWithImm) + 1, Of(&WcOpcodeName)},
        Table{"PostError", static_cast<int>(PostError::kNoDestination) + 1, Of(&PostErrorText)}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(CapabilitiesText, NoneOneAll) {
  EXPECT_EQ(ToString(Capabilities{}), "");
  EXPECT_EQ(ToString(Capabilities{.rnr = true}), "rnr");
  EXPECT_EQ(ToString(Capabilities{.immediate = true, .atomics = true, .rnr = true}),
            "immediate atomics rnr");
  EXPECT_EQ(ToString(Capabilities{true, true, true, true, true, true, true, true, true, true, true,
                                  true, true, true, true, true, true, true, true}),
            "immediate atomics send_with_invalidate memory_windows rnr remote_completion "
            "unguessable_keys global_atomics lazy_registration peer_counters responder_events "
            "own_peer_known out_of_band out_of_band_handshake refusal_reasons queue_pair_rights "
            "traffic_class unreliable_datagram unreliable_connection");
}

TEST(Names, ShortenedEndsBehindAWord) {
  EXPECT_EQ(Shortened("its port is down", 16), "its port is down");
  EXPECT_EQ(Shortened("its port is down", 15), "its port is...");
  EXPECT_EQ(Shortened("its port is down", 13), "its port...");
  EXPECT_EQ(Shortened("one-word-without-a-space", 10), "one-wor...");
  for (size_t most = 0; most < 16; ++most) {
    EXPECT_LE(Shortened("its port is down", most).size(), most);
  }
}

}  // namespace
}  // namespace verbena
