// SPDX-License-Identifier: Apache-2.0
#include "rpc/driver.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "rpc/limits.h"

namespace verbena::rpc {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

}  // namespace

Driver::Driver(Context& context, const DriverOptions& options)
    : context_(context), options_(options), next_tick_ns_(kNever) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = kWakeTag}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  Watch(context_.events().fd(), [this] {
    // Completions say all that a connection has to say; the events are only in the way.
    while (context_.events().TryNext()) {
    }
  });
}

Driver::~Driver() {
  Stop();
  close(wake_);
  close(epoll_);
}

absl::StatusOr<Lane*> Driver::LaneOn(Device& device, uint32_t entries) {
  const std::lock_guard lock(lanes_lock_);
  const size_t count = lane_count_.load();
  for (size_t i = 0; i < count; ++i) {
    Lane& lane = *lanes_[i];
    if (lane.device != &device) continue;
    if (lane.promised + entries > lane.completions.entries()) {
      const uint32_t needed = lane.promised + entries;
      const uint32_t most = device.attributes().max_completions;
      if (needed > most) {
        return absl::ResourceExhaustedError("rpc: the device's longest completion queue is full");
      }
      const uint32_t wanted = std::clamp(2 * lane.completions.entries(), needed, most);
      if (auto status = lane.completions.Resize(wanted); !status.ok()) return status;
    }
    lane.promised += entries;
    return &lane;
  }
  if (count == kMaxLanes) return absl::ResourceExhaustedError("rpc: more than 16 devices");
  auto lane = std::make_unique<Lane>();
  lane->device = &device;
  auto domain = device.AllocateProtectionDomain();
  if (!domain.ok()) return domain.status();
  lane->domain = *std::move(domain);
  auto channel = device.CreateCompletionChannel();
  if (!channel.ok()) return channel.status();
  lane->channel = *std::move(channel);
  const uint32_t most = device.attributes().max_completions;
  auto completions = device.CreateCompletionQueue(
      {.entries = std::min(std::max(kCompletions, entries), most), .channel = &lane->channel});
  if (!completions.ok()) return completions.status();
  lane->completions = *std::move(completions);
  lane->promised = entries;
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = count}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, lane->channel.fd(), &event) != 0) {
    return absl::ResourceExhaustedError("rpc: epoll takes no more descriptors");
  }
  lanes_[count] = std::move(lane);
  lane_count_.store(count + 1);
  if (!running_.load()) WakeUp();  // who sleeps has not armed this one
  return lanes_[count].get();
}

void Driver::GiveBack(Lane& lane, uint32_t entries) {
  const std::lock_guard lock(lanes_lock_);
  lane.promised -= entries;
}

void Driver::Watch(int fd, std::function<void()> readable) {
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = kMaxLanes + watches_.size()}};
  watches_.push_back(std::move(readable));
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

void Driver::Post(std::function<void()> task) {
  {
    const std::lock_guard lock(work_lock_);
    tasks_.push_back(std::move(task));
    has_tasks_.store(true);
  }
  if (running_.load()) return;  // it looks once more before it sleeps or leaves
  const std::lock_guard lock(turn_);
  if (led_) {
    WakeUp();
  } else {
    PassOn();
  }
}

void Driver::FlushSoon(Flushable& who) {
  // Whoever set it is about to queue it, and it is cleared before the flush: what was put before
  // this line leaves with that one.
  if (who.flush_due.exchange(true)) return;
  if (OnLeader()) return own_dirty_.push_back(&who);
  if (!running_.load()) {
    who.flush_due.store(false);
    who.Flush();
    return;
  }
  {
    const std::lock_guard lock(work_lock_);
    dirty_.push_back(&who);
    has_dirty_.store(true);
  }
  if (!running_.load()) FlushDirty();  // it has just left
}

void Driver::Forget(Flushable& who) {
  const std::lock_guard flushing(flushing_);
  const std::lock_guard lock(work_lock_);
  std::erase(dirty_, &who);
  // Only the leader touches this one, and who is forgotten elsewhere was never in there.
  if (OnLeader()) std::erase(own_dirty_, &who);
}

void Driver::TickBy(int64_t when_ns) {
  int64_t now_set = next_tick_ns_.load();
  do {
    if (now_set <= when_ns) return;
  } while (!next_tick_ns_.compare_exchange_weak(now_set, when_ns));
  if (!running_.load()) WakeUp();
}

void Driver::Attend() {
  if (attended_.fetch_add(1) > 0 || running_.load()) return;
  const std::lock_guard lock(turn_);
  if (!led_) PassOn();
}

void Driver::Drive(Waiter& waiter) {
  bool leads = false;
  {
    const std::lock_guard lock(turn_);
    if (!waiter.done.load()) {
      waiters_.push_back(&waiter);
      waiting_.store(waiters_.size());
      leads = !led_ && waiters_.size() == 1;
      if (leads) {
        led_ = waiter.leads = true;
      } else if (!led_) {
        PassOn();
      }
    }
  }
  if (!leads) {
    while (sem_wait(&waiter.woken) != 0) {
    }
    if (!waiter.leads) return;
  }
  Lead([&] { return waiter.done.load(std::memory_order_relaxed); });
  const std::lock_guard lock(turn_);
  std::erase(waiters_, &waiter);
  waiting_.store(waiters_.size());
  led_ = false;
  PassOn();
}

void Driver::Done(Waiter& waiter) {
  if (waiter.leads) {
    waiter.done.store(true, std::memory_order_relaxed);
    return;
  }
  {
    const std::lock_guard lock(turn_);
    std::erase(waiters_, &waiter);
    waiting_.store(waiters_.size());
    waiter.done.store(true);
  }
  sem_post(&waiter.woken);
}

// With `turn_`, when nobody leads.
void Driver::PassOn() {
  if (!waiters_.empty() || Needed() || options_.always) thread_wanted_.notify_one();
}

void Driver::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Driver::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(turn_);
    stop_.store(true);
    thread_wanted_.notify_one();
    WakeUp();
  }
  thread_.join();
  RunTasks();
}

void Driver::Run() {
  std::unique_lock lock(turn_);
  while (!stop_.load()) {
    if (led_ || !(Needed() || options_.always || !waiters_.empty())) {
      thread_wanted_.wait(lock);
      continue;
    }
    led_ = true;
    // Who is left behind by one who led is one of many.
    int64_t many_ns = waiters_.empty() ? 0 : NowNs();
    lock.unlock();
    int64_t idle_since = 0;
    Lead([&] { return ThreadIsOver(idle_since, many_ns); });
    lock.lock();
    led_ = false;
    if (waiters_.size() == 1 && !Needed() && !options_.always) {
      led_ = waiters_.front()->leads = true;
      sem_post(&waiters_.front()->woken);
    }
  }
}

// Of the thread's lead. `idle_since`: 0, or since when nobody has wanted it. `many_ns`: when
// several waited last.
bool Driver::ThreadIsOver(int64_t& idle_since, int64_t& many_ns) const {
  if (stop_.load(std::memory_order_relaxed)) return true;
  if (options_.always) return false;
  const size_t waiting = waiting_.load(std::memory_order_relaxed);
  if (Needed() || waiting > 1) {
    idle_since = 0;
    if (waiting > 1) many_ns = NowNs();
    return false;
  }
  const int64_t spin_ns = absl::ToInt64Nanoseconds(options_.spin);
  if (waiting == 1) return NowNs() - many_ns > spin_ns;
  // The next call may be about to come: to wake this thread costs more than to look on.
  if (options_.wait == Wait::kBlock) return true;
  const int64_t now = NowNs();
  if (idle_since == 0) idle_since = now;
  return now - idle_since > spin_ns;
}

}  // namespace verbena::rpc
