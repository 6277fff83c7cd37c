// SPDX-License-Identifier: Apache-2.0
#include "fallback/completion_channel.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fallback/completion.h"

namespace verbena::fallback {

namespace {
// The channel that this thread serves now: an event of its own making needs no bell.
thread_local const CompletionChannel* serving = nullptr;

absl::StatusOr<std::unique_ptr<WaitSet>> NewSet(Device* device) {
  absl::StatusOr<std::unique_ptr<WaitSet>> set = WaitSet::Create(&device->hub());
  if (set.ok()) return set;
  return absl::ResourceExhaustedError(absl::StrCat("completion channel: ", set.status().message()));
}
}  // namespace

absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CompletionChannel::Create(
    Device* device) {
  absl::StatusOr<std::unique_ptr<WaitSet>> set = NewSet(device);
  if (!set.ok()) return set.status();
  return std::make_unique<CompletionChannel>(device, *std::move(set), -1, nullptr);
}

absl::StatusOr<std::unique_ptr<CompletionChannel>> CompletionChannel::CreateExact(Device* device,
                                                                                  Taken taken) {
  absl::StatusOr<std::unique_ptr<WaitSet>> set = NewSet(device);
  if (!set.ok()) return set.status();
  const int fd = eventfd(0, EFD_CLOEXEC);
  if (fd < 0) return provider::NoDescriptor("completion channel", errno);
  return std::make_unique<CompletionChannel>(device, *std::move(set), fd, taken);
}

CompletionChannel::CompletionChannel(Device* device, std::unique_ptr<WaitSet> set, int exact_fd,
                                     Taken taken)
    : device_(device), set_(std::move(set)), exact_fd_(exact_fd), taken_(taken) {
  device_->children().Add();
}

CompletionChannel::~CompletionChannel() {
  if (exact_fd_ >= 0) close(exact_fd_);
  set_.reset();  // before the device may go
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
    SetBell();
  }
  children_.Remove();
}

void CompletionChannel::Signal(CompletionQueue* cq) {
  {
    std::lock_guard lock(mutex_);
    ++cq->unread_;
    ++waiting_;
    ++counters_.events;
    if (serving != this) SetBell();
  }
  device_->hub().world().Changed();
}

void CompletionChannel::SetBell() {
  if (waiting_ > 0) {
    set_->Ring();
  } else {
    set_->Silence();
  }
  if (exact_fd_ >= 0) Raise(waiting_ > 0);
}

// Neither call blocks: the count is 0 before, or 1. Programs may have made the descriptor
// non-blocking, or not.
void CompletionChannel::Raise(bool up) {
  if (up == raised_) return;
  raised_ = up;
  uint64_t count = 1;
  if (up) {
    (void)!write(exact_fd_, &count, sizeof(count));
  } else {
    (void)!read(exact_fd_, &count, sizeof(count));
  }
}

bool CompletionChannel::TryNext(CqEvent* event) {
  if (Take(event)) return true;
  if (set_->empty()) return false;
  Serve(0);
  return Take(event);
}

// Rings or silences the bell for what is left.
bool CompletionChannel::Take(CqEvent* event) {
  std::lock_guard lock(mutex_);
  bool taken = false;
  for (size_t i = 0; i < queues_.size() && waiting_ > 0; ++i) {
    CompletionQueue* cq = queues_[i];
    if (cq->unread_ == 0) continue;
    --cq->unread_;
    --waiting_;
    ++counters_.taken;
    event->context = cq->context();
    if (taken_ != nullptr) taken_(event->context);
    std::rotate(queues_.begin() + static_cast<ptrdiff_t>(i),
                queues_.begin() + static_cast<ptrdiff_t>(i) + 1, queues_.end());  // fair
    taken = true;
    break;
  }
  SetBell();
  return taken;
}

// Whoever calls it takes an event afterwards, and so sees to the bell.
void CompletionChannel::Serve(Nanos deadline) {
  const auto* const before = std::exchange(serving, this);
  set_->Serve(deadline);
  serving = before;
}

int CompletionChannel::Attend() {
  attended_.store(true, std::memory_order_relaxed);
  set_->Settle();  // which may make an event, and so rings
  return set_->fd();
}

bool CompletionChannel::Await(absl::Duration timeout) {
  Hub& hub = device_->hub();
  const Nanos deadline = hub.In(timeout);
  if (!hub.world().descriptors()) {
    return hub.world().Await([this] { return HasEvent(); }, deadline);
  }
  if (HasEvent()) return true;
  do {
    set_->Settle();  // which may make an event, and so rings
    Serve(deadline);
    if (HasEvent()) return true;
  } while (deadline == io::kNever || hub.Now() < deadline);
  return false;
}

ChannelCounters CompletionChannel::counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

bool CompletionChannel::HasEvent() {
  std::lock_guard lock(mutex_);
  return waiting_ > 0;
}

}  // namespace verbena::fallback
