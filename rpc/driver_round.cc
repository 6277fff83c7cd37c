// SPDX-License-Identifier: Apache-2.0
// What the leader of a Driver does, round after round.
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <span>

#include "rpc/driver.h"

namespace verbena::rpc {
namespace {

constexpr int64_t kWatchEveryNs = 1'000'000;  // descriptors, while the leader does not sleep
constexpr uint32_t kLookEvery = 64;           // rounds that found work
constexpr int kEvents = 32;

}  // namespace

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

void Driver::Lead(absl::FunctionRef<bool()> over) {
  const int64_t spin_ns =
      options_.wait == Wait::kBlock ? 0 : absl::ToInt64Nanoseconds(options_.spin);
  leader_.store(std::this_thread::get_id());
  running_.store(true);
  int64_t idle_since = 0;
  uint32_t rounds = 0;
  while (!over()) {
    if (Round()) {
      idle_since = 0;
      if (++rounds % kLookEvery == 0) LookAround(NowNs());
      continue;
    }
    const int64_t now = NowNs();
    LookAround(now);
    if (options_.wait == Wait::kSpin) continue;
    if (idle_since == 0) idle_since = now;
    if (now - idle_since >= spin_ns) Sleep(over);
  }
  FlushOwn();
  leader_.store({});
  running_.store(false);
  if (has_dirty_.load()) FlushDirty();  // of those who saw it running a moment ago
}

// Timers, and descriptors that nobody sleeps on while the leader spins.
void Driver::LookAround(int64_t now) {
  if (now >= next_tick_ns_.load(std::memory_order_relaxed)) {
    next_tick_ns_.store(std::numeric_limits<int64_t>::max());
    if (tick_) TickBy(tick_(now));
  }
  if (now - watched_ns_ < kWatchEveryNs) return;
  watched_ns_ = now;
  AwaitDescriptors(0);
}

// True if there was anything to do.
bool Driver::Round() {
  bool some = PollLanes();
  if (has_tasks_.load(std::memory_order_relaxed)) some |= RunTasks();
  FlushOwn();
  if (has_dirty_.load(std::memory_order_relaxed)) FlushDirty();
  return some;
}

bool Driver::PollLanes() {
  bool some = false;
  const size_t count = lane_count_.load(std::memory_order_acquire);
  for (size_t i = 0; i < count; ++i) {
    const size_t polled = lanes_[i]->completions.Poll(polled_);
    for (const WorkCompletion& wc : std::span(polled_).first(polled)) {
      reinterpret_cast<Completer*>(wc.id)->Complete(wc);  // NOLINT: IdOf() made it
    }
    some |= polled > 0;
  }
  return some;
}

bool Driver::RunTasks() {
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(work_lock_);
    tasks.swap(tasks_);
    has_tasks_.store(false);
  }
  for (auto& task : tasks) task();
  return !tasks.empty();
}

void Driver::FlushOwn() {
  while (!own_dirty_.empty()) {
    Flushable* who = own_dirty_.back();
    own_dirty_.pop_back();
    who->flush_due.store(false);
    who->Flush();
  }
}

void Driver::FlushDirty() {
  // One at a time: who is forgotten meanwhile must not be called any more.
  const std::lock_guard flushing(flushing_);
  for (;;) {
    Flushable* who = nullptr;
    {
      const std::lock_guard lock(work_lock_);
      if (dirty_.empty()) {
        has_dirty_.store(false);
        return;
      }
      who = dirty_.back();
      dirty_.pop_back();
    }
    who->flush_due.store(false);
    who->Flush();
  }
}

// Arms first and looks once more, as completions that are there already make no event.
void Driver::Sleep(absl::FunctionRef<bool()> over) {
  running_.store(false);
  if (has_dirty_.load()) FlushDirty();
  bool armed = true;
  const size_t count = lane_count_.load(std::memory_order_acquire);
  for (size_t i = 0; i < count; ++i) armed &= lanes_[i]->completions.RequestNotify().ok();
  if (armed && !Round() && !has_tasks_.load() && !over()) {
    const int64_t next = next_tick_ns_.load();
    const bool forever = next == std::numeric_limits<int64_t>::max();
    AwaitDescriptors(forever ? -1 : std::max<int64_t>(next - NowNs(), 0));
  }
  running_.store(true);
}

void Driver::AwaitDescriptors(int64_t timeout_ns) {
  std::array<epoll_event, kEvents> events;
  // Rounded up: who wakes before its time would spin until then.
  const int64_t timeout_ms =
      timeout_ns < 0 ? -1 : std::min<int64_t>((timeout_ns + 999'999) / 1'000'000, 60'000);
  const int ready = epoll_wait(epoll_, events.data(), kEvents, static_cast<int>(timeout_ms));
  for (int i = 0; i < ready; ++i) {
    const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
    if (tag == kWakeTag) {
      uint64_t count = 0;
      (void)!read(wake_, &count, sizeof(count));
    } else if (tag < kMaxLanes) {
      // One: there is one queue, armed once. To ask for another would settle what is owed to peers,
      // which an answer may soon take along.
      CqEvent event;
      (void)lanes_[tag]->channel.TryNext(&event);
    } else {
      watches_[tag - kMaxLanes]();
    }
  }
}

void Driver::WakeUp() {
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));
}

}  // namespace verbena::rpc
