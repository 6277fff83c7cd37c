// SPDX-License-Identifier: Apache-2.0
// Completion queues and channels: ibv_create_cq(3), ibv_poll_cq(3), ibv_req_notify_cq(3),
// ibv_get_cq_event(3). Any thread; several may poll one queue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/counters.h"
#include "transport/handle.h"
#include "transport/options.h"
#include "transport/provider.h"
#include "transport/work_completion.h"

namespace verbena {

class CompletionQueue : public Handle<provider::CompletionQueue> {
 public:
  using Handle::Handle;

  // Takes up to out.size() completions, oldest first, and says how many. Never blocks or allocates;
  // on TCP it moves the bytes of the queue pairs that use this queue.
  size_t Poll(std::span<WorkCompletion> out) { return impl_->Poll(out); }

  // Exactly `count` completions. DeadlineExceeded after `timeout`: the completions that had come
  // are named in the error's text and not returned by any later call; where that matters, use Poll.
  absl::StatusOr<std::vector<WorkCompletion>> Wait(
      size_t count, absl::Duration timeout = absl::InfiniteDuration());

  // One-shot: the next completion that is added (kSolicited: the next solicited receive or error)
  // makes an event on the channel. Entries that are already there make none: poll once more after
  // arming. FailedPrecondition without a channel.
  absl::Status RequestNotify(Notify kind = Notify::kAny) { return impl_->RequestNotify(kind); }

  // InvalidArgument if more entries than `entries` wait in it. A full queue that gets one more
  // completion is in error: kCqError, and its queue pairs go to ERR.
  absl::Status Resize(uint32_t entries) { return impl_->Resize(entries); }
  uint32_t entries() const { return impl_->entries(); }
  CqCounters counters() const { return impl_->counters(); }
};

// Where the events of completion queues arrive; outlives them.
class CompletionChannel : public Handle<provider::CompletionChannel> {
 public:
  using Handle::Handle;

  // For epoll or poll: readable when Next() may have an event. Readiness may be spurious; call
  // TryNext() then. Do not read it.
  int fd() const { return impl_->fd(); }

  bool TryNext(CqEvent* event) { return impl_->TryNext(event); }
  ChannelCounters counters() const { return impl_->counters(); }
  // DeadlineExceeded after `timeout`.
  absl::StatusOr<CqEvent> Next(absl::Duration timeout = absl::InfiniteDuration());
};

}  // namespace verbena
