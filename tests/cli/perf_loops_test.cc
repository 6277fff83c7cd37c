// SPDX-License-Identifier: Apache-2.0
// The loops of `verbena perf`, both ends in one process: with credits, which only plain iWARP ends
// need otherwise, and without an allocation.
#include "tools/verbena/perf_loops.h"

#include <algorithm>
#include <memory>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "tests/cli/allocations.h"
#include "tools/verbena/perf_end.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

// Two ends that are connected.
class Pair {
 public:
  explicit Pair(const PerfRequest& request, uint32_t list)
      : context_(Context::Open({.device = "tcp"}).value()),
        listener_(context_.Listen("127.0.0.1:0").value()),
        path_(context_.Resolve(listener_.address()).value()) {
    client_ = PerfEnd::Make(path_.device(), request, {.list = list}, kPatience).value();
    server_ = PerfEnd::Make(path_.device(), request, {.server = true}, kPatience).value();
    client_->set_peer(server_->lent());
    server_->set_peer(client_->lent());
    std::thread accepting([&] {
      for (uint32_t i = 0; i < request.queue_pairs; ++i) {
        EXPECT_TRUE(listener_.Next(kPatience).value().Accept(server_->qp(i)).ok());
      }
    });
    for (uint32_t i = 0; i < request.queue_pairs; ++i) {
      EXPECT_TRUE(path_.Connect(client_->qp(i)).ok());
    }
    accepting.join();
    client_->Prepare(request.size);
    server_->Prepare(request.size);
  }

  // Both ends' part in `leg`, and a word each way after it. Allocations of the client's loop.
  uint64_t Run(const PerfLeg& leg, PerfTally& tally) {
    std::thread answering([&] {
      EXPECT_TRUE(AnswerLeg(*server_, leg)) << server_->status();
      EXPECT_EQ(server_->Hear().value()[0], 'c');
      EXPECT_TRUE(server_->Say("s"));
    });
    const uint64_t before = testing::AllocationsOfThisThread();
    const bool latency = client_->request().mode == PerfMode::kLatency;
    const auto tick = [](uint64_t) {};
    EXPECT_TRUE(latency ? PingPong(*client_, leg, tally, tick) : Flood(*client_, leg, tally, tick))
        << client_->status();
    const uint64_t made = testing::AllocationsOfThisThread() - before;
    EXPECT_TRUE(client_->Say("c"));
    EXPECT_EQ(client_->Hear().value()[0], 's');
    answering.join();
    return made;
  }

 private:
  Context context_;
  Listener listener_;
  Path path_;
  std::unique_ptr<PerfEnd> client_;
  std::unique_ptr<PerfEnd> server_;
};

// Windows that credits divide and do not; more queue pairs than messages.
TEST(PerfLoops, Credits) {
  for (uint32_t window : {1u, 2u, 5u, 16u}) {
    for (uint32_t queue_pairs : {1u, 3u}) {
      Pair pair({.op = PerfOp::kSend,
                 .size = 100,
                 .window = window,
                 .queue_pairs = queue_pairs,
                 .lent = {}},
                std::max(window / 4, 1u));
      for (uint64_t rounds : {1u, 2u, 100u, 1003u}) {
        PerfTally tally;
        pair.Run({.size = 100, .rounds = rounds, .credit = std::max(window / 2, 1u)}, tally);
      }
    }
  }
}

TEST(PerfLoops, NothingIsAllocated) {
  for (PerfOp op : {PerfOp::kWrite, PerfOp::kRead, PerfOp::kSend, PerfOp::kAtomic}) {
    for (PerfMode mode : {PerfMode::kLatency, PerfMode::kBandwidth}) {
      Pair pair({.op = op, .mode = mode, .size = 8, .window = 16, .queue_pairs = 2, .lent = {}}, 4);
      PerfTally warm_up;
      pair.Run({.size = 8, .rounds = 500}, warm_up);
      PerfTally tally;
      EXPECT_EQ(pair.Run({.size = 8, .rounds = 2000}, tally), 0u)
          << PerfOpName(op) << " " << PerfModeName(mode);
      EXPECT_EQ(tally.rounds.count(), mode == PerfMode::kLatency ? 2000u : 0u);
    }
  }
}

}  // namespace
}  // namespace verbena::tool
