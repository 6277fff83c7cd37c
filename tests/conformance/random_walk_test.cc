// SPDX-License-Identifier: Apache-2.0
// Random mostly-valid use of one connection from both ends, against a model that knows what every
// completion must say and what every byte must be. The seed is the ground's and the row's.
#include <algorithm>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

constexpr uint32_t kSlots = 16;        // of each area; no more requests than that at once
constexpr uint32_t kSlot = 128 << 10;  // bytes
constexpr uint64_t kArea = kSlots * kSlot;
constexpr uint64_t kSources = 0, kTargets = kArea, kSinks = 2 * kArea, kReceives = 3 * kArea;
constexpr uint64_t kWords = 4 * kArea;  // the peer's counter, then results of atomics
constexpr uint64_t kMemory = 4 * kArea + 4096;

constexpr EndOptions kEnd = {.limits = {.max_send_wr = kSlots, .max_receive_wr = kSlots},
                             .memory = kMemory,
                             .separate_receive_cq = true};

// What one end has asked for and what must come of it.
struct Side {
  struct Request {
    uint64_t id;
    Opcode opcode;
    uint32_t slot, length;
    uint64_t pattern;  // sent, written, or to be read; atomics: the former value
  };
  struct Message {
    uint32_t length;
    uint64_t pattern;
    bool immediate;
  };
  struct Target {
    uint64_t pattern = 0;
    uint32_t length = 0;  // 0: never written
    int readers = 0;
  };

  End* end = nullptr;
  Side* peer = nullptr;
  uint64_t next = 0;  // id of the next request, and its pattern
  uint64_t next_receive = 0;
  uint64_t sum = 0;               // of our additions at the peer
  std::deque<Request> requests;   // outstanding
  std::deque<uint64_t> receives;  // outstanding
  std::deque<Message> under_way;  // to the peer, in order
  Target targets[kSlots];         // at the peer
  bool drained = false;           // in SQD
  bool failed = false;            // an error has completed

  QueuePair& qp() { return end->qp; }
};

class WalkOfTwo {
 public:
  WalkOfTwo(ConformanceBase& test, uint64_t seed)
      : test_(test), random_(seed), pair_(MakePair(test, Both(kEnd))) {
    sides_[0].end = pair_.client.get();
    sides_[1].end = pair_.server.get();
    sides_[0].peer = &sides_[1];
    sides_[1].peer = &sides_[0];
    const Capabilities can = pair_.client->device.capabilities();
    atomics_ = can.atomics;
    immediate_ = can.immediate;
    // Soft-RoCE's fence may wait for itself: Rnr.FencedReadIsSentAgain.
    const DeviceInfo& info = pair_.client->device.info();
    fence_ = !(info.software && info.link == Link::kRoce);
    waits_ = can.rnr;
  }

  void Step() {
    Side& side = sides_[random_() % 2];
    switch (random_() % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
      case 7:
        return PostRequest(side);
      case 8:
      case 9:
      case 10:
        return PostReceives(side, 1 + random_() % 4);
      case 11:
      case 12:
      case 13:
        return Poll(side);
      case 14:
        return test_.RunFor(absl::Microseconds(random_() % 500));
      default:
        return ToggleDrain(side);
    }
  }

  // Lets everything that waits run to its end.
  void Finish() {
    for (Side& side : sides_) {
      if (side.drained) ToggleDrain(side);
    }
    const bool done = test_.RunUntil([&] {
      bool left = false;
      for (Side& side : sides_) {
        PostReceives(side, std::min<size_t>(side.peer->under_way.size(), 4));
        Poll(side);
        left = left || !side.requests.empty() || !side.under_way.empty();
      }
      return !left;
    });
    if (!done) Stop("requests are left that never complete: " + Describe(), Line::Here());
    for (Side& side : sides_) CheckTargets(side);
  }

  // Something goes wrong with the connection.
  void Fail() {
    Side& side = sides_[random_() % 2];
    switch (random_() % 5) {
      case 0:
        return Check(side.qp().Disconnect());
      case 1:
        return Check(side.qp().Modify({.state = QpState::kErr}));
      case 2:
        return Check(side.end->region.Close());
      case 3:
        if (test_.ground().Cut(side.qp())) return;
        [[fallthrough]];
      default:
        if (side.drained) ToggleDrain(side);
        if (side.requests.size() == kSlots) return Check(side.qp().Disconnect());
        side.requests.push_back({side.next, Opcode::kWrite, 0, 8, 0});
        Post(side.qp(), {.opcode = Opcode::kWrite,
                         .local = side.end->slice(kSources + side.next % kSlots * kSlot, 8),
                         .remote = {.address = 64, .key = 64},
                         .id = side.next++});
    }
  }

  // After Fail: every request and receive completes once, in order, errors at the end.
  void ExpectEverythingCompletes() {
    for (Side& side : sides_) {
      if (side.drained) (void)side.qp().Modify({.state = QpState::kRts});
    }
    const bool done = test_.RunUntil([&] {
      bool left = false;
      for (Side& side : sides_) {
        // Sends may wait for receives still, and a closed region shows only when it is used.
        if (side.qp().state() == QpState::kRts) PostReceives(side, 1);
        if (side.qp().state() == QpState::kRts && !side.peer->end->region.is_open()) Provoke(side);
        Poll(side);
        left = left || !side.requests.empty() || !side.receives.empty() ||
               side.qp().state() != QpState::kErr;
      }
      return !left;
    });
    if (!done) Stop("requests are left that never complete: " + Describe(), Line::Here());
    for (Side& side : sides_) {
      EXPECT_TRUE(test_.StaysEmpty(side.end->cq, absl::Milliseconds(1)));
      EXPECT_TRUE(test_.StaysEmpty(side.end->receive_cq, absl::Milliseconds(1)));
    }
  }

 private:
  uint32_t Length() {
    switch (random_() % 4) {
      case 0:
        return random_() % 64;
      case 1:
        return random_() % 5000;
      case 2:
        return random_() % kSlot;
      default:
        return 8;
    }
  }

  void Provoke(Side& side) {
    if (!side.requests.empty()) return;
    side.requests.push_back({side.next, Opcode::kRead, 0, 8, 0});
    (void)side.qp().PostSend({.opcode = Opcode::kRead,
                              .local = side.end->slice(kSinks, 8),
                              .remote = {.address = 64, .key = 64},
                              .id = side.next++});
  }

  void PostRequest(Side& side) {
    if (side.requests.size() == kSlots) return;
    const uint64_t id = side.next;
    const uint64_t own = id % kSlots * kSlot;
    SendWr wr{.id = id};
    Side::Request request{id, Opcode::kSend, static_cast<uint32_t>(random_() % kSlots), Length(),
                          1000 * id + (&side - sides_)};
    Side::Target& target = side.targets[request.slot];
    const RemoteAddress there = side.peer->end->at(kTargets + request.slot * kSlot);
    switch (random_() % 8) {
      case 0:
      case 1:
      case 2: {
        if (!waits_ && side.under_way.size() >= side.peer->receives.size()) return;
        const bool immediate = immediate_ && random_() % 2 == 0;
        wr.opcode = request.opcode = immediate ? Opcode::kSendWithImm : Opcode::kSend;
        wr.immediate = static_cast<uint32_t>(id);
        break;
      }
      case 3:
      case 4:
        if (target.readers > 0) return;  // a write could overtake the read
        wr.opcode = request.opcode = Opcode::kWrite;
        wr.remote = there;
        break;
      case 5:
        if (!atomics_) return;
        wr.opcode = request.opcode = Opcode::kFetchAdd;
        request.pattern = side.sum;
        wr.local = side.end->slice(kWords + 64 + id % kSlots * 8, 8);
        wr.remote = side.peer->end->at(kWords);
        wr.atomic.compare_add = 1 + random_() % 100;
        break;
      default:
        if (target.length == 0) return;
        wr.opcode = request.opcode = Opcode::kRead;
        request.length = 1 + random_() % target.length;
        request.pattern = target.pattern;
        wr.local = side.end->slice(kSinks + own, request.length);
        wr.remote = there;
        break;
    }
    const bool carries = request.opcode != Opcode::kRead && request.opcode != Opcode::kFetchAdd;
    if (carries) {
      Fill(side.end->bytes(kSources + own, request.length), request.pattern);
      wr.local = side.end->slice(kSources + own, request.length);
      if (request.length <= 256 && random_() % 2 == 0) wr.flags = SendFlags::kInline;
    }
    if (random_() % 8 == 0 && fence_) wr.flags = wr.flags | SendFlags::kFence;
    const PostResult result = side.qp().PostSend(wr);
    if (result.error == PostError::kQueueFull) return;
    Check(result);
    ++side.next;
    side.requests.push_back(request);
    if (request.opcode == Opcode::kRead) ++target.readers;
    if (request.opcode == Opcode::kFetchAdd) side.sum += wr.atomic.compare_add;
    if (request.opcode == Opcode::kWrite && request.length > 0) {
      target.pattern = request.pattern;
      target.length = request.length;
    }
    if (request.opcode == Opcode::kSend || request.opcode == Opcode::kSendWithImm) {
      side.under_way.push_back(
          {request.length, request.pattern, request.opcode == Opcode::kSendWithImm});
    }
  }

  void PostReceives(Side& side, size_t count) {
    for (; count > 0 && side.receives.size() < kSlots; --count) {
      const uint64_t id = side.next_receive;
      ReceiveWr receive{.id = id};
      if (side.end->region.is_open()) {
        receive.local = side.end->slice(kReceives + id % kSlots * kSlot, kSlot);
      }
      if (!side.qp().PostReceive(receive).ok()) return;
      side.receives.push_back(side.next_receive++);
    }
  }

  void ToggleDrain(Side& side) {
    side.drained = !side.drained;
    Check(side.qp().Modify({.state = side.drained ? QpState::kSqd : QpState::kRts}));
  }

  void Poll(Side& side) {
    WorkCompletion batch[4];
    size_t n = side.end->cq.Poll({batch, 1 + random_() % 4});
    for (size_t i = 0; i < n; ++i) Completed(side, batch[i]);
    n = side.end->receive_cq.Poll({batch, 1 + random_() % 4});
    for (size_t i = 0; i < n; ++i) Received(side, batch[i]);
  }

  void Completed(Side& side, const WorkCompletion& wc) {
    ASSERT_FALSE(side.requests.empty());
    const Side::Request request = side.requests.front();
    side.requests.pop_front();
    EXPECT_EQ(wc.id, request.id);
    if (!wc.ok()) {
      if (side.failed) {
        EXPECT_EQ(wc.status, WcStatus::kFlushed) << testing::PrintToString(wc);
      }
      side.failed = true;
      return;
    }
    EXPECT_FALSE(side.failed) << "success after an error: " << testing::PrintToString(wc);
    const uint64_t own = request.id % kSlots;
    if (request.opcode == Opcode::kRead) {
      --side.targets[request.slot].readers;
      EXPECT_THAT(side.end->bytes(kSinks + own * kSlot, request.length),
                  HasPattern(request.pattern));
    } else if (request.opcode == Opcode::kFetchAdd) {
      EXPECT_EQ(side.end->buffer.word(kWords + 64 + own * 8), request.pattern);
    }
  }

  void Received(Side& side, const WorkCompletion& wc) {
    ASSERT_FALSE(side.receives.empty());
    EXPECT_EQ(wc.id, side.receives.front());
    side.receives.pop_front();
    if (!wc.ok()) return;
    ASSERT_FALSE(side.peer->under_way.empty()) << "a message that was never sent";
    const Side::Message message = side.peer->under_way.front();
    side.peer->under_way.pop_front();
    EXPECT_EQ(wc.length, message.length);
    EXPECT_EQ(wc.has_immediate, message.immediate);
    EXPECT_THAT(side.end->bytes(kReceives + wc.id % kSlots * kSlot, message.length),
                HasPattern(message.pattern));
  }

  // All has completed: the peer's memory is what this side wrote last.
  void CheckTargets(Side& side) {
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      const Side::Target& target = side.targets[slot];
      EXPECT_THAT(side.peer->end->bytes(kTargets + slot * kSlot, target.length),
                  HasPattern(target.pattern))
          << "slot " << slot;
    }
    EXPECT_EQ(side.peer->end->buffer.word(kWords), side.sum);
  }

  std::string Describe() {
    std::string text;
    for (Side& side : sides_) {
      absl::StrAppend(&text, &side == sides_ ? "client: " : "server: ", side.requests.size(),
                      " requests, ", side.receives.size(), " receives, ",
                      QpStateName(side.qp().state()), ", ", side.qp().cause().ToString(), "; ");
    }
    return text;
  }

  ConformanceBase& test_;
  std::mt19937_64 random_;
  Pair pair_;
  Side sides_[2];
  bool atomics_ = false;
  bool immediate_ = false;
  bool fence_ = false;
  bool waits_ = false;  // a send may find no receive
};

struct WalkRow {
  std::string name;
  uint64_t seed;
};

std::vector<WalkRow> Walks() {
  std::vector<WalkRow> rows;
  for (uint64_t seed = 1; seed <= 10; ++seed) rows.push_back({absl::StrCat(seed), seed});
  return rows;
}

CONFORMANCE_TABLE(RandomWalk, WalkRow, Walks());

TEST_P(RandomWalk, EverythingIsAsTheModelSays) {
  // 500 steps of sends, writes, reads, additions, receives, polls, pauses and drains at both ends.
  // Expect: every completion in its turn, every byte as the model has it.
  WalkOfTwo walk(*this, ground().seed() * 100 + row().seed);
  for (int i = 0; i < 500 && !HasFailure(); ++i) walk.Step();
  walk.Finish();
}

TEST_P(RandomWalk, UntilSomethingFails) {
  // The same until, after a random number of steps, one end disconnects, goes to ERR, closes its
  // region, uses a wrong key, or the connection breaks.
  // Expect: every request and receive completes exactly once, in order, errors last.
  WalkOfTwo walk(*this, ground().seed() * 100 + row().seed + 50);
  const uint64_t steps = ground().seed() * 31 + row().seed * 37;
  for (uint64_t i = 0; i < steps % 300 && !HasFailure(); ++i) walk.Step();
  walk.Fail();
  walk.ExpectEverythingCompletes();
}

}  // namespace
}  // namespace verbena::conformance
