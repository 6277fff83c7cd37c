// SPDX-License-Identifier: Apache-2.0
#include "fallback/hub.h"

#include <memory>
#include <vector>

#include "fallback/engine/test_allocations.h"
#include "fallback/io/sim_network.h"
#include "gtest/gtest.h"

namespace verbena::fallback {
namespace {

struct Nothing final : Watched {
  void OnReady(bool, bool) override {}
  void OnDeadline() override {}
};

// Posts do both to their queue pairs.
TEST(Hub, AllocatesNothingForWhatBecomesHotOrWaits) {
  constexpr io::Nanos kLater = 1'000'000'000;
  io::SimNetwork network(io::SimOptions::Calm());
  const std::unique_ptr<io::World> world = network.NewWorld("10.0.0.1");
  Hub hub(world.get());
  std::vector<Nothing> all(100);
  for (Nothing& each : all) hub.Add(&each);
  const uint64_t before = engine::AllocationCount();
  for (Nothing& each : all) {
    hub.SetHot(&each, true);
    hub.SetDeadline(&each, kLater);
  }
  EXPECT_EQ(engine::AllocationCount(), before);
  for (Nothing& each : all) hub.Remove(&each);
}

}  // namespace
}  // namespace verbena::fallback
