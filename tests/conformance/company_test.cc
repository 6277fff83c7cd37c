// SPDX-License-Identifier: Apache-2.0
// What shares a send call: an acknowledgement goes with an answer, requests go with each other
// (docs/decisions/0019-who-sends-when.md). And that nothing waits for company that does not come.
#include "absl/strings/str_cat.h"
#include "fallback/io/sim_network.h"
#include "fallback/provider.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

// A simulated network that does no harm, so that send calls can be counted.
class CalmGround final : public Ground {
 public:
  absl::StatusOr<Context> NewHost() override {
    auto provider = fallback::OpenOn(network_.NewWorld(address(hosts_++)), "");
    if (!provider.ok()) return provider.status();
    return Context::OpenOn(*std::move(provider));
  }
  std::string address(int host) const override { return absl::StrCat("10.0.0.", host + 1); }
  bool simulated() const override { return true; }
  bool Cut(const QueuePair&) override { return false; }
  bool Silence(bool) override { return false; }

 private:
  io::SimNetwork network_{io::SimOptions::Calm()};
  int hosts_ = 0;
};

class Calm : public ConformanceBase {
 protected:
  void SetUp() override {
    Open({"calm", [](const std::string&) { return std::make_unique<CalmGround>(); }});
  }
};

uint64_t SendCalls(const End& end) { return end.qp.counters().send_calls; }

TEST_F(Calm, WhoWatchesMemoryAndAnswersAcknowledgesWithTheAnswer) {
  // The loop of perftest's latency tests where it is slow: what the peer writes is placed by the
  // service; the program sees it in its memory, writes back, and polls.
  // Expect: a send call for each write. An acknowledgement that went ahead would tell the peer of
  // its own write before this one comes: it stops polling, and nobody reads its socket until the
  // service looks. Then the same is true of this side, for good.
  constexpr uint64_t kTurns = 100;
  Pair pair = MakePair(*this);
  const uint64_t before = SendCalls(*pair.client) + SendCalls(*pair.server);
  uint64_t completed = 0;
  const auto write = [&](End& from, const End& to, uint64_t turn) {
    from.buffer.word(8) = turn;
    Post(from.qp, {.opcode = Opcode::kWrite, .local = from.slice(8, 8), .remote = to.at(0)});
    WorkCompletion wc;
    completed += from.cq.Poll({&wc, 1});
    for (int i = 0; i < 10'000 && to.buffer.word(0) != turn; ++i) RunFor(absl::Microseconds(5));
    ASSERT_EQ(to.buffer.word(0), turn);
  };
  for (uint64_t turn = 1; turn <= kTurns; ++turn) {
    write(*pair.client, *pair.server, turn);
    write(*pair.server, *pair.client, turn);
  }
  EXPECT_GE(completed, 2 * kTurns - 4);
  EXPECT_LE(SendCalls(*pair.client) + SendCalls(*pair.server) - before, 2 * kTurns + 10);
}

TEST_F(Calm, RequestsThatNobodyWaitsForShareACall) {
  // One post a microsecond, without a poll between them.
  // Expect: a send call for several of them.
  constexpr uint64_t kRequests = 100;
  Pair pair = MakePair(*this);
  const auto post = [&] {
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, 64),
                           .remote = pair.server->at(0)});
  };
  WorkCompletion wc[16];
  size_t done = 0;
  for (int i = 0; i < 10; ++i) {  // somebody polls
    post();
    EXPECT_TRUE(Spin([&] { return (done += pair.client->cq.Poll(wc)) > static_cast<size_t>(i); }));
  }
  const uint64_t before = SendCalls(*pair.client);
  for (uint64_t i = 0; i < kRequests; ++i) {
    post();
    RunFor(absl::Microseconds(1));
  }
  EXPECT_TRUE(Spin([&] { return (done += pair.client->cq.Poll(wc)) == kRequests + 10; }));
  EXPECT_LE(SendCalls(*pair.client) - before, kRequests / 3);
}

class Company : public Conformance {};
INSTANTIATE_TEST_SUITE_P(All, Company, testing::ValuesIn(KernelProviders()),
                         [](const auto& info) { return info.param.name; });

TEST_P(Company, WhoTakesAMessageAndGoesAway) {
  // The server takes the event and the message, and calls nothing any more. Another time it has
  // posted before, as who means to answer would have.
  // Expect: the message is acknowledged all the same.
  for (const bool answered_before : {false, true}) {
    Pair pair = MakePair(*this, {.server = {.separate_receive_cq = true, .channel = true}});
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64)});
    if (answered_before) {
      Post(pair.server->qp, {.opcode = Opcode::kWrite,
                             .local = pair.server->slice(0, 8),
                             .remote = pair.client->at(0)});
    }
    Check(pair.server->receive_cq.RequestNotify());
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8)});
    ASSERT_THAT(pair.server->channel.Next(kLong), IsOk());
    WorkCompletion wc;
    ASSERT_EQ(pair.server->receive_cq.Poll({&wc, 1}), 1u);
    ASSERT_THAT(pair.client->cq.Wait(1, kLong), IsOk());
  }
}

}  // namespace
}  // namespace verbena::conformance
