// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/perf_loops.h"

#include <algorithm>
#include <vector>

namespace verbena::tool {
namespace {

// Turns until `ready`.
template <typename Ready>
bool TurnUntil(PerfEnd& end, Ready ready) {
  while (!ready()) {
    if (!end.Turn()) return false;
  }
  return true;
}

uint8_t StampOf(uint64_t round) { return static_cast<uint8_t>(round + 1); }

// Ping-pong, either side: send queue entries come back when completions are polled, which watching
// memory or waiting for a receive need not have done.
bool MakeRoom(PerfEnd& end, uint32_t index) {
  constexpr uint32_t kUnpolled = 16;  // PerfEnd makes its send queue longer
  return TurnUntil(end, [&] { return end.flying(index) < kUnpolled; });
}

// The queue pair of each round in turn, without a division.
class Turns {
 public:
  explicit Turns(const PerfEnd& end) : count_(end.queue_pairs()) {}
  uint32_t Next() {
    const uint32_t now = next_;
    next_ = now + 1 == count_ ? 0 : now + 1;
    return now;
  }

 private:
  const uint32_t count_;
  uint32_t next_ = 0;
};

template <PerfOp op>
bool PingPongWith(PerfEnd& end, uint64_t rounds, PerfTally& tally, PerfTick tick) {
  Turns turns(end);
  uint64_t start = Ticks();
  for (uint64_t round = 0; round < rounds; ++round) {
    const uint32_t index = turns.Next();
    const uint64_t completed = end.completed();
    if constexpr (op == PerfOp::kWrite) end.Stamp(StampOf(round));
    if (!end.Post(index, 1)) return false;
    // In place of the receive that the last answer took, while this message is under way.
    if constexpr (op == PerfOp::kSend) {
      if (round > 0 && !end.Restock(end.latest())) return false;
    }
    const bool answered = TurnUntil(end, [&] {
      if constexpr (op == PerfOp::kWrite) return end.Landed() == StampOf(round);
      if constexpr (op == PerfOp::kSend) return end.waiting() > 0;
      return end.completed() > completed;
    });
    if (!answered) return false;
    if constexpr (op == PerfOp::kSend) end.Take(1);
    end.Progressed();
    const uint64_t now = Ticks();
    tally.rounds.Add(now > start ? now - start : 0);
    start = now;
    if (!MakeRoom(end, index)) return false;
    if ((round & 0x3FF) == 0x3FF) tick(round);
  }
  return op != PerfOp::kSend || end.Restock(end.latest());
}

// One-sided traffic needs nothing from us: on a device only the client's next message shows here,
// and polling would cost what the device spares. Over TCP a thread that polls moves the bytes
// sooner than the service thread; so poll while bytes come, and sleep for a while when none came.
bool WatchOneSided(PerfEnd& end) {
  constexpr absl::Duration kLook = absl::Milliseconds(200);
  const bool sees = !end.request().events && end.qp(0).capabilities().peer_counters;
  auto received = [&] {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < end.queue_pairs(); ++i) bytes += end.qp(i).counters().bytes_received;
    return bytes;
  };
  while (end.waiting() == 0) {
    const uint64_t before = sees ? received() : 0;
    const Clock::time_point look = Clock::now() + absl::ToChronoNanoseconds(kLook);
    uint32_t turns = 0;
    end.Progressed();
    while (sees && end.waiting() == 0 && ((++turns & 0xFF) != 0 || Clock::now() < look)) {
      if (!end.Turn()) return false;
    }
    if (end.waiting() > 0 || (sees && received() != before)) continue;
    if (!end.Nap(kLook)) return false;
  }
  return true;
}

bool AnswerWrites(PerfEnd& end, uint64_t rounds) {
  Turns turns(end);
  for (uint64_t round = 0; round < rounds; ++round) {
    const uint32_t index = turns.Next();
    if (!TurnUntil(end, [&] { return end.Landed() == StampOf(round); })) return false;
    end.Progressed();
    end.Stamp(StampOf(round));
    if (!end.Post(index, 1) || !MakeRoom(end, index)) return false;
  }
  return true;
}

bool EchoSends(PerfEnd& end, uint64_t rounds) {
  for (uint64_t round = 0; round < rounds; ++round) {
    if (!TurnUntil(end, [&] { return end.waiting() > 0; })) return false;
    end.Take(1);
    const uint32_t index = end.latest();
    if (!end.Post(index, 1) || !end.Restock(index) || !MakeRoom(end, index)) return false;
  }
  return true;
}

bool TakeSends(PerfEnd& end, const PerfLeg& leg) {
  std::vector<uint32_t> uncredited(leg.credit > 0 ? end.queue_pairs() : 0);
  while (end.waiting() < leg.rounds) {
    if (!end.Turn()) return false;
    for (const WorkCompletion& done : end.done()) {
      const uint32_t index = PerfEnd::QpOf(done);
      if (end.owed(index) >= end.restock_at() && !end.Restock(index)) return false;
      if (leg.credit == 0 || done.opcode != WcOpcode::kReceive) continue;
      if (++uncredited[index] < leg.credit) continue;
      uncredited[index] = 0;
      if (!end.Credit(index)) return false;
    }
  }
  end.Take(leg.rounds);
  for (uint32_t i = 0; i < uncredited.size(); ++i) {
    if (uncredited[i] > 0 && !end.Credit(i)) return false;
  }
  return true;
}

}  // namespace

bool PingPong(PerfEnd& end, const PerfLeg& leg, PerfTally& tally, PerfTick tick) {
  switch (end.request().op) {
    case PerfOp::kWrite:
      return PingPongWith<PerfOp::kWrite>(end, leg.rounds, tally, tick);
    case PerfOp::kSend:
      return PingPongWith<PerfOp::kSend>(end, leg.rounds, tally, tick);
    case PerfOp::kRead:
    case PerfOp::kAtomic:
      break;
  }
  return PingPongWith<PerfOp::kRead>(end, leg.rounds, tally, tick);
}

bool Flood(PerfEnd& end, const PerfLeg& leg, PerfTally& tally, PerfTick tick) {
  const uint32_t window = end.request().window;
  const uint64_t slice = std::max(leg.rounds / 64, 2 * uint64_t{window} * end.queue_pairs());
  const uint64_t first = end.completed();
  uint64_t left = leg.rounds;
  uint64_t uncredited = 0;  // of all queue pairs together, and of each
  std::vector<uint32_t> uncredited_of(leg.credit > 0 ? end.queue_pairs() : 0);
  auto fill = [&](uint32_t index) {
    while (left > 0) {
      const auto next = static_cast<uint32_t>(std::min<uint64_t>(end.posting().list, left));
      if (end.flying(index) + next > window) break;
      if (leg.credit > 0) {
        if (uncredited_of[index] + next > window) break;
        uncredited_of[index] += next;
        uncredited += next;
      }
      if (!end.Post(index, next)) return false;
      left -= next;
    }
    return true;
  };
  auto take_credit = [&](uint32_t index) {
    // A last one stands for less.
    const uint32_t credit = std::min(leg.credit, uncredited_of[index]);
    uncredited_of[index] -= credit;
    uncredited -= credit;
    end.Take(1);
    return end.Restock(index);
  };
  uint64_t slice_start = Ticks();
  uint64_t slice_first = first;
  for (uint32_t i = 0; i < end.queue_pairs(); ++i) {
    if (!fill(i)) return false;
  }
  while (end.completed() - first < leg.rounds || uncredited > 0) {
    if (!end.Turn()) return false;
    for (const WorkCompletion& done : end.done()) {
      const uint32_t index = PerfEnd::QpOf(done);
      if (leg.credit > 0 && done.opcode == WcOpcode::kReceive && !take_credit(index)) return false;
      if (!fill(index)) return false;
    }
    if (const uint64_t operations = end.completed() - slice_first; operations >= slice) {
      const uint64_t now = Ticks();
      tally.fastest = std::min(
          tally.fastest, static_cast<double>(now - slice_start) / static_cast<double>(operations));
      slice_start = now;
      slice_first = end.completed();
      tick(slice_first - first);
    }
  }
  return true;
}

bool AnswerLeg(PerfEnd& end, const PerfLeg& leg) {
  const PerfOp op = end.request().op;
  const bool latency = end.request().mode == PerfMode::kLatency;
  if (op == PerfOp::kSend) return latency ? EchoSends(end, leg.rounds) : TakeSends(end, leg);
  if (op == PerfOp::kWrite && latency) return AnswerWrites(end, leg.rounds);
  return WatchOneSided(end);
}

}  // namespace verbena::tool
