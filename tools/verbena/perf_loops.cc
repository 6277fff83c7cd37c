// SPDX-License-Identifier: Apache-2.0
// The loops that are measured, and those that answer them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tools/verbena/perf.h"

namespace verbena::tool {
namespace {

// Turns until `ready`. False: the spinner's status says why.
template <typename Ready>
bool SpinUntil(Spinner& spinner, Ready ready) {
  while (!ready()) {
    if (!spinner.Turn()) return false;
  }
  return true;
}

uint8_t StampOf(uint64_t round) { return static_cast<uint8_t>(round + 1); }

// Ping-pong, either side: send queue entries come back when completions are polled, which watching
// memory or waiting for a receive need not have done.
bool MakeRoom(Spinner& spinner, uint64_t posted) {
  constexpr uint64_t kUnpolled = 16;  // PerfEnd makes its send queue longer
  return SpinUntil(spinner, [&] { return posted - spinner.sends() < kUnpolled; });
}

// One-sided traffic needs nothing from us: on a device only the client's last message shows here.
// Over TCP a thread that polls moves the bytes sooner than the service thread; so poll while bytes
// come, and sleep for a while when none came.
absl::Status WatchOneSided(PerfEnd& end, Spinner& spinner) {
  constexpr absl::Duration kLook = absl::Milliseconds(200);
  constexpr absl::Duration kLongest = absl::Hours(1);
  const absl::Time deadline = absl::Now() + kLongest;
  while (absl::Now() < deadline) {
    const uint64_t before = end.link().qp().counters().bytes_received;
    const Clock::time_point look = Clock::now() + absl::ToChronoNanoseconds(kLook);
    uint32_t turns = 0;
    spinner.Progressed();
    while (spinner.receives() == 0 && ((++turns & 0xFF) != 0 || Clock::now() < look)) {
      if (!spinner.Turn()) return spinner.status();
    }
    if (spinner.receives() > 0) return absl::OkStatus();
    if (end.link().qp().counters().bytes_received != before) continue;
    absl::StatusOr<WorkCompletion> done = end.link().Await(WcOpcode::kReceive, kLook);
    if (done.ok() || !absl::IsDeadlineExceeded(done.status())) return done.status();
  }
  return absl::DeadlineExceededError(absl::StrCat("the client ", end.link().qp().connection().peer,
                                                  " was not done after ",
                                                  absl::FormatDuration(kLongest)));
}

absl::Status AnswerWrites(PerfEnd& end, Spinner& spinner) {
  for (uint64_t round = 0; round < end.request().rounds; ++round) {
    if (!SpinUntil(spinner, [&] { return end.Landed() == StampOf(round); }) ||
        !MakeRoom(spinner, round)) {
      return spinner.status();
    }
    spinner.Progressed();
    end.Stamp(StampOf(round));
    if (absl::Status status = end.Post(1); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status AnswerSends(PerfEnd& end, Spinner& spinner) {
  const bool echo = end.request().mode == PerfMode::kLatency;
  for (uint64_t received = 0; received < end.request().rounds;) {
    if (!SpinUntil(spinner, [&] { return spinner.receives() > received; })) return spinner.status();
    for (; received < spinner.receives(); ++received) {
      if (echo) {
        if (!MakeRoom(spinner, received)) return spinner.status();
        if (absl::Status status = end.Post(1); !status.ok()) return status;
      }
      if (absl::Status status = end.PostReceive(); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LatencyRounds(PerfEnd& end, Spinner& spinner, uint32_t first, uint32_t count,
                           Samples* samples) {
  const PerfOp op = end.request().op;
  Progress progress(absl::StrCat(PerfOpName(op), " latency"), count);
  Clock::time_point start = Clock::now();
  for (uint64_t round = first; round < uint64_t{first} + count; ++round) {
    const uint64_t receives = spinner.receives();
    if (!MakeRoom(spinner, round)) return spinner.status();
    if (op == PerfOp::kWrite) end.Stamp(StampOf(round));
    if (absl::Status status = end.Post(1); !status.ok()) return status;
    // In place of the one that the last answer took, while this message is under way.
    if (op == PerfOp::kSend && round > first) {
      if (absl::Status status = end.PostReceive(); !status.ok()) return status;
    }
    const bool answered = SpinUntil(spinner, [&] {
      return op == PerfOp::kWrite  ? end.Landed() == StampOf(round)
             : op == PerfOp::kRead ? spinner.sends() > round
                                   : spinner.receives() > receives;
    });
    if (!answered) return spinner.status();
    spinner.Progressed();
    const Clock::time_point now = Clock::now();
    samples->Add(now - start);
    start = now;
    progress.Update(round - first);
  }
  return op == PerfOp::kSend && count > 0 ? end.PostReceive() : absl::OkStatus();
}

absl::Status BandwidthRounds(PerfEnd& end, Spinner& spinner, uint32_t count) {
  const uint32_t window = end.request().window;
  // One doorbell for several operations, and always some in flight while they are made.
  const uint32_t batch = std::clamp<uint32_t>(window / 4, 1, 32);
  const uint64_t before = spinner.sends();
  Progress progress(absl::StrCat(PerfOpName(end.request().op), " bandwidth"), count);
  uint64_t posted = 0;
  while (spinner.sends() - before < count) {
    const uint64_t flying = posted - (spinner.sends() - before);
    const auto next = static_cast<uint32_t>(std::min<uint64_t>(batch, count - posted));
    if (next > 0 && flying + next <= window) {
      if (absl::Status status = end.Post(next); !status.ok()) return status;
      posted += next;
      continue;
    }
    if (!spinner.Turn()) return spinner.status();
    progress.Update(posted);
  }
  return absl::OkStatus();
}

absl::Status AnswerRounds(PerfEnd& end, Spinner& spinner) {
  const PerfRequest& request = end.request();
  if (request.op == PerfOp::kSend) {
    if (absl::Status status = AnswerSends(end, spinner); !status.ok()) return status;
    // The next message is the last.
    return SpinUntil(spinner, [&] { return spinner.receives() > request.rounds; })
               ? absl::OkStatus()
               : spinner.status();
  }
  if (request.op == PerfOp::kWrite && request.mode == PerfMode::kLatency) {
    if (absl::Status status = AnswerWrites(end, spinner); !status.ok()) return status;
    return SpinUntil(spinner, [&] { return spinner.receives() > 0; }) ? absl::OkStatus()
                                                                      : spinner.status();
  }
  return WatchOneSided(end, spinner);
}

}  // namespace verbena::tool
