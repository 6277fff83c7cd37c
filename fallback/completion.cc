// SPDX-License-Identifier: Apache-2.0
#include "fallback/completion.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "fallback/queue_pair.h"
#include "transport/completion_queue.h"

namespace verbena::fallback {

absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CompletionChannel::Create(
    Device* device) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("completion channel: no descriptor for it (", std::strerror(errno),
                     "). Raise the limit: `ulimit -n`, LimitNOFILE= in systemd"));
  }
  return std::make_unique<CompletionChannel>(device, fd);
}

CompletionChannel::CompletionChannel(Device* device, int fd) : device_(device), fd_(fd) {
  device_->children().Add();
}

CompletionChannel::~CompletionChannel() {
  close(fd_);
  device_->children().Remove();
}

void CompletionChannel::Join(CompletionQueue* cq) {
  children_.Add();
  std::lock_guard lock(mutex_);
  queues_.push_back(cq);
}

void CompletionChannel::Leave(CompletionQueue* cq) {
  {
    std::lock_guard lock(mutex_);
    std::erase(queues_, cq);
    waiting_ -= cq->unread_;
    uint64_t count;
    if (cq->unread_ > 0 && waiting_ == 0) (void)!read(fd_, &count, sizeof(count));
  }
  children_.Remove();
}

void CompletionChannel::Signal(CompletionQueue* cq) {
  {
    std::lock_guard lock(mutex_);
    ++cq->unread_;
    const uint64_t one = 1;
    if (waiting_++ == 0) (void)!write(fd_, &one, sizeof(one));
  }
  device_->hub().world().Changed();
}

bool CompletionChannel::TryNext(CqEvent* event) {
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < queues_.size() && waiting_ > 0; ++i) {
      CompletionQueue* cq = queues_[i];
      if (cq->unread_ == 0) continue;
      --cq->unread_;
      uint64_t count;
      if (--waiting_ == 0) (void)!read(fd_, &count, sizeof(count));
      event->context = cq->context();
      std::rotate(queues_.begin() + static_cast<ptrdiff_t>(i),
                  queues_.begin() + static_cast<ptrdiff_t>(i) + 1, queues_.end());  // fair
      return true;
    }
  }
  return false;
}

absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CompletionQueue::Create(
    Device* device, const CqOptions& options) {
  CompletionChannel* channel = nullptr;
  if (options.channel != nullptr) {
    channel = dynamic_cast<CompletionChannel*>(options.channel->impl());
    if (channel == nullptr || channel->device() != device) {
      return absl::InvalidArgumentError(
          "completion queue: its channel is closed or of another device");
    }
  }
  return std::make_unique<CompletionQueue>(device, options, channel);
}

CompletionQueue::CompletionQueue(Device* device, const CqOptions& options,
                                 CompletionChannel* channel)
    : device_(device), context_(options.context), channel_(channel), ring_(options.entries, this) {
  device_->children().Add();
  device_->counts().completion_queues.fetch_add(1);
  if (channel_ != nullptr) channel_->Join(this);
}

CompletionQueue::~CompletionQueue() {
  device_->counts().completion_queues.fetch_sub(1);
  device_->children().Remove();
}

absl::Status CompletionQueue::Close() {
  if (absl::Status s = children_.CheckNone("completion queue"); !s.ok()) return s;
  if (channel_ != nullptr) channel_->Leave(this);
  device_->Forget(this);
  return absl::OkStatus();
}

size_t CompletionQueue::Poll(std::span<WorkCompletion> out) {
  polls_.fetch_add(1, std::memory_order_relaxed);
  size_t n = ring_.Pop(out);
  if (n > 0) return n;
  last_poll_.store(device_->hub().Now(), std::memory_order_relaxed);
  if (hot_count_.load(std::memory_order_relaxed) > 0) {
    DriveHot();
    n = ring_.Pop(out);
    if (n > 0) return n;
  }
  empty_polls_.fetch_add(1, std::memory_order_relaxed);
  device_->hub().world().Nudge();
  return ring_.Pop(out);
}

// Each is owned while the list is locked, and driven when it is not: closing a queue pair takes it
// off the list and then owns it, so nothing here outlives it.
void CompletionQueue::DriveHot() {
  for (size_t i = 0;; ++i) {
    QueuePair* qp = nullptr;
    {
      std::lock_guard lock(hot_lock_);
      while (i < hot_.size() && !hot_[i]->TryOwn()) ++i;
      if (i >= hot_.size()) return;
      qp = hot_[i];
    }
    qp->WorkAndRelease(QueuePair::Why::kPoll);
  }
}

void CompletionQueue::HandOver() {
  for (;;) {
    QueuePair* qp = nullptr;
    {
      std::lock_guard lock(hot_lock_);
      for (QueuePair* candidate : hot_) {
        if (candidate->TryOwn()) {
          qp = candidate;
          break;
        }
      }
    }
    if (qp == nullptr) return;  // who owns the rest serves it; the next tick takes it over
    qp->WorkAndRelease(QueuePair::Why::kHandOver);
  }
}

absl::Status CompletionQueue::RequestNotify(Notify kind) {
  if (channel_ == nullptr) {
    return absl::FailedPreconditionError(
        "request notify: the completion queue has no channel; name one when creating it");
  }
  ring_.Arm(kind);
  HandOver();
  return absl::OkStatus();
}

absl::Status CompletionQueue::Resize(uint32_t entries) {
  if (entries == 0) {
    return absl::InvalidArgumentError("resize completion queue: 0 entries, at least 1 is needed");
  }
  if (absl::Status s = CheckLimit("resize completion queue: entries", entries,
                                  Device::Attributes().max_completions);
      !s.ok()) {
    return s;
  }
  if (!ring_.Resize(entries)) {
    return absl::InvalidArgumentError(absl::StrCat("resize completion queue to ", entries,
                                                   " entries: more completions than that wait in "
                                                   "it; poll them first"));
  }
  return absl::OkStatus();
}

CqCounters CompletionQueue::counters() const {
  CqCounters c = ring_.counters();
  c.polls = polls_.load(std::memory_order_relaxed);
  c.empty_polls = empty_polls_.load(std::memory_order_relaxed);
  return c;
}

bool CompletionQueue::Await(absl::Duration timeout) {
  Hub& hub = device_->hub();
  const Nanos deadline = timeout == absl::InfiniteDuration()
                             ? io::kNever
                             : hub.Now() + absl::ToInt64Nanoseconds(timeout);
  bool there = true;
  if (ring_.BeginWait()) {
    HandOver();
    there = hub.world().Await([this] { return !ring_.empty(); }, deadline);
  }
  ring_.EndWait();
  return there;
}

void CompletionQueue::OnNotify() {
  if (channel_ != nullptr) channel_->Signal(this);
}

// Overrun (IBTA 11.6.3.2, ibv_get_async_event(3) IBV_EVENT_CQ_ERR): the queue pairs cannot complete
// anything any more, so they end.
void CompletionQueue::OnOverflow() {
  Event e;
  e.type = EventType::kCqError;
  e.context = context_;
  e.status = absl::ResourceExhaustedError(
      absl::StrCat("a completion queue of ", ring_.entries(),
                   " entries overflowed; make it as large as all that may complete on it"));
  device_->Push(this, std::move(e));
  std::lock_guard lock(mutex_);
  for (QueuePair* qp : queue_pairs_) qp->RequestFailure();
}

void CompletionQueue::Join(QueuePair* qp) {
  children_.Add();
  std::lock_guard lock(mutex_);
  queue_pairs_.insert(qp);
}

void CompletionQueue::Leave(QueuePair* qp) {
  {
    std::lock_guard lock(mutex_);
    queue_pairs_.erase(qp);
  }
  children_.Remove();
}

void CompletionQueue::AddHot(QueuePair* qp) {
  std::lock_guard lock(hot_lock_);
  hot_.push_back(qp);
  hot_count_.store(hot_.size(), std::memory_order_relaxed);
}

void CompletionQueue::RemoveHot(QueuePair* qp) {
  std::lock_guard lock(hot_lock_);
  std::erase(hot_, qp);
  hot_count_.store(hot_.size(), std::memory_order_relaxed);
}

}  // namespace verbena::fallback
