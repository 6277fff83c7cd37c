// SPDX-License-Identifier: Apache-2.0
#include "fallback/completion_channel.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fallback/completion.h"

namespace verbena::fallback {

namespace {
// The channel that this thread serves now: an event of its own making needs no bell.
thread_local const CompletionChannel* serving = nullptr;
}  // namespace

absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CompletionChannel::Create(
    Device* device) {
  absl::StatusOr<std::unique_ptr<WaitSet>> set = WaitSet::Create(&device->hub());
  if (!set.ok()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("completion channel: ", set.status().message()));
  }
  return std::make_unique<CompletionChannel>(device, *std::move(set));
}

CompletionChannel::CompletionChannel(Device* device, std::unique_ptr<WaitSet> set)
    : device_(device), set_(std::move(set)) {
  device_->children().Add();
}

CompletionChannel::~CompletionChannel() {
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
