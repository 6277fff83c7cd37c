// SPDX-License-Identifier: Apache-2.0
#include "transport/completion_queue.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace verbena {
namespace {

// How long Wait polls before it sleeps: a loopback round trip takes 10 to 30 µs, going to sleep and
// being woken about as much again.
constexpr absl::Duration kSpin = absl::Microseconds(50);

// Taken from the provider at a time, on the stack.
constexpr size_t kBatch = 32;

// Not absl::Now(): setting the wall clock must not lengthen a wait.
absl::Duration Clock() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Status TimedOut(const std::vector<WorkCompletion>& taken, size_t count,
                      absl::Duration timeout) {
  std::string text = absl::StrCat("completion queue: ", taken.size(), " of ", count,
                                  " completions came within ", absl::FormatDuration(timeout));
  const char* between = ": ";
  for (const WorkCompletion& wc : taken) {
    absl::StrAppend(&text, between, "wr ", wc.id, " on qp 0x", absl::Hex(wc.qp_number), " ",
                    wc.ok() ? WcOpcodeName(wc.opcode) : WcStatusName(wc.status));
    between = ", ";
  }
  absl::StrAppend(&text, ". Were the others posted, and signalled? Is the peer alive?");
  return absl::DeadlineExceededError(text);
}

}  // namespace

absl::StatusOr<std::vector<WorkCompletion>> CompletionQueue::Wait(size_t count,
                                                                  absl::Duration timeout) {
  std::vector<WorkCompletion> taken;
  WorkCompletion batch[kBatch];
  const absl::Duration start = Clock();
  absl::Duration spin_until = start + kSpin;
  while (taken.size() < count) {
    const size_t n = Poll(std::span(batch, std::min(kBatch, count - taken.size())));
    if (n > 0) {
      taken.insert(taken.end(), batch, batch + n);
      spin_until = Clock() + kSpin;  // more is likely to be on its way
      continue;
    }
    const absl::Duration now = Clock();
    const absl::Duration left = timeout - (now - start);
    if (left <= absl::ZeroDuration()) return TimedOut(taken, count, timeout);
    // The provider's clock decides; it may be a simulated one.
    if (now >= spin_until && !impl_->Await(left)) return TimedOut(taken, count, timeout);
  }
  return taken;
}

absl::StatusOr<CqEvent> CompletionChannel::Next(absl::Duration timeout) {
  CqEvent event;
  const absl::Duration start = Clock();
  absl::Duration left = timeout;  // on the provider's clock, which may be a simulated one
  // Who comes here has just looked: to look again before it sleeps would be a call for nothing.
  while (impl_->Await(left)) {
    if (impl_->TryNext(&event)) return event;
    left = timeout - (Clock() - start);
  }
  return absl::DeadlineExceededError(
      absl::StrCat("completion channel: no event came within ", absl::FormatDuration(timeout),
                   ". Was RequestNotify called, and the queue polled once more after it?"));
}

}  // namespace verbena
