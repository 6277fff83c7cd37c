// SPDX-License-Identifier: Apache-2.0
// Locks for a few instructions and one non-blocking system call; events are rare.
#include "transport/events.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "transport/provider.h"

namespace verbena {

const char* EventTypeName(EventType type) {
  switch (type) {
    case EventType::kEstablished:
      return "Established";
    case EventType::kRejected:
      return "Rejected";
    case EventType::kUnreachable:
      return "Unreachable";
    case EventType::kDisconnected:
      return "Disconnected";
    case EventType::kQpFatal:
      return "QpFatal";
    case EventType::kQpAccessError:
      return "QpAccessError";
    case EventType::kQpRequestError:
      return "QpRequestError";
    case EventType::kCommunicationEstablished:
      return "CommunicationEstablished";
    case EventType::kSendQueueDrained:
      return "SendQueueDrained";
    case EventType::kLastWqeReached:
      return "LastWqeReached";
    case EventType::kSrqLimitReached:
      return "SrqLimitReached";
    case EventType::kCqError:
      return "CqError";
    case EventType::kDeviceFatal:
      return "DeviceFatal";
  }
  return "?";
}

struct EventQueue::Impl {
  explicit Impl(provider::Context* context) : context(context) {}

  struct Entry {
    const void* object;
    Event event;
  };

  provider::Context* const context;
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);  // -1: Context::Open reports it
  std::mutex mutex;
  std::deque<Entry> waiting;
  bool readable = false;  // what the descriptor says
  EventCounters counters;

  // Under the mutex, so that the descriptor never contradicts the queue for long: it is written
  // when the first event comes and read when the last one goes, not once for each.
  void Signal() {
    if (readable == !waiting.empty()) return;
    readable = !readable;
    eventfd_t value = 1;
    // Cannot fail: the counter goes from 0 to 1 and back.
    (void)(readable ? eventfd_write(fd, value) : eventfd_read(fd, &value));
  }
};

EventQueue::EventQueue(provider::Context* context) : impl_(std::make_unique<Impl>(context)) {}

EventQueue::~EventQueue() {
  if (impl_->fd >= 0) close(impl_->fd);
}

int EventQueue::fd() const { return impl_->fd; }

std::optional<Event> EventQueue::TryNext() {
  const std::lock_guard lock(impl_->mutex);
  if (impl_->waiting.empty()) return std::nullopt;
  Event event = std::move(impl_->waiting.front().event);
  impl_->waiting.pop_front();
  ++impl_->counters.taken;
  impl_->Signal();
  return event;
}

absl::StatusOr<Event> EventQueue::Next(absl::Duration timeout) {
  std::optional<Event> event;
  const auto ready = [&] {
    event = TryNext();
    return event.has_value();
  };
  if (impl_->context->Await(ready, timeout)) return *std::move(event);
  return absl::DeadlineExceededError(
      absl::StrCat("event queue: no event came within ", absl::FormatDuration(timeout),
                   ". Is anything listening, connecting or connected on this context?"));
}

EventCounters EventQueue::counters() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->counters;
}

void EventQueue::Push(const void* object, Event event) {
  const std::lock_guard lock(impl_->mutex);
  impl_->waiting.push_back({object, std::move(event)});
  ++impl_->counters.events;
  impl_->Signal();
}

void EventQueue::Forget(const void* object) {
  const std::lock_guard lock(impl_->mutex);
  std::erase_if(impl_->waiting, [&](const Impl::Entry& entry) { return entry.object == object; });
  impl_->Signal();
}

}  // namespace verbena
