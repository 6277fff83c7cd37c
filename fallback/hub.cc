// SPDX-License-Identifier: Apache-2.0
#include "fallback/hub.h"

#include <algorithm>
#include <array>

#include "fallback/lingerer.h"

namespace verbena::fallback {

Hub::~Hub() { lingerers_.clear(); }  // they use it

void Hub::Add(Watched* w) {
  std::lock_guard lock(mutex_);
  w->id_ = next_id_++;
  registry_.emplace(w->id_, w);
  // A post may make its queue pair hot, and allocates nothing.
  if (hot_.capacity() < registry_.size()) hot_.reserve(2 * registry_.size());
  Deadlines one = {{io::kNever, w->id_}};
  w->unarmed_ = one.extract(one.begin());
}

void Hub::Remove(Watched* w) {
  std::unique_lock lock(mutex_);
  const uint64_t id = w->id_;
  Arm(w, io::kNever);
  w->unarmed_ = {};
  if (w->hot_) std::erase(hot_, id);
  w->hot_ = false;
  registry_.erase(id);
  // Inside its own call the caller is the one that is busy.
  idle_.wait(lock, [&] { return busy_ != id || turner_ == std::this_thread::get_id(); });
}

// With the mutex held. Allocates nothing: queue pairs wait for a peer's receives while they are
// busy.
void Hub::Arm(Watched* w, Nanos deadline) {
  if (w->deadline_ != io::kNever) w->unarmed_ = deadlines_.extract({w->deadline_, w->id_});
  w->deadline_ = w->unarmed_.empty() ? io::kNever : deadline;  // empty: not in the registry
  if (w->deadline_ == io::kNever) return;
  w->unarmed_.value() = {deadline, w->id_};
  deadlines_.insert(std::move(w->unarmed_));
}

void Hub::SetDeadline(Watched* w, Nanos deadline) {
  // Who takes a deadline away calls OnDeadline, which sets it again.
  if (w->deadline_.load(std::memory_order_relaxed) == deadline) return;
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    if (w->deadline_ == deadline) return;
    Arm(w, deadline);
    wake = deadline < sleeping_until_ && turner_ != std::this_thread::get_id();
  }
  if (wake) poller().Wake();
}

void Hub::Poke(uint64_t id) {
  {
    std::lock_guard lock(mutex_);
    const auto it = registry_.find(id);
    if (it == registry_.end()) return;
    Arm(it->second, 0);
  }
  poller().Wake();
}

void Hub::SetHot(Watched* w, bool hot) {
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    if (w->hot_ == hot) return;
    w->hot_ = hot;
    if (hot) {
      hot_.push_back(w->id_);
      if (next_tick_ == io::kNever) next_tick_ = Now() + kTick;
      wake = next_tick_ < sleeping_until_ && turner_ != std::this_thread::get_id();
    } else {
      std::erase(hot_, w->id_);
      if (hot_.empty()) next_tick_ = io::kNever;
    }
  }
  if (wake) poller().Wake();
}

void Hub::Watch(Watched* w, io::Socket socket, bool read, bool write) {
  poller().Watch(socket, w->id_, read, write);
}

void Hub::ChangeWatch(Watched* w, io::Socket socket, bool read, bool write) {
  poller().Change(socket, w->id_, read, write);
}

void Hub::Retire(std::unique_ptr<Watched> w) {
  std::lock_guard lock(mutex_);
  retired_.push_back(std::move(w));
}

void Hub::Linger(io::Socket socket, std::vector<std::byte> rest) {
  auto made = std::make_unique<Lingerer>(this, socket, std::move(rest));
  Lingerer* const lingerer = made.get();
  Add(lingerer);
  {
    std::lock_guard lock(mutex_);
    lingerers_.emplace(lingerer, std::move(made));
  }
  SetDeadline(lingerer, Now());  // from here on it is the service's
}

void Hub::Lingered(const Watched* w) {
  {
    std::lock_guard lock(mutex_);
    retired_.push_back(std::move(lingerers_.extract(w).mapped()));
  }
  world().Changed();
}

bool Hub::lingering() const {
  std::lock_guard lock(mutex_);
  return !lingerers_.empty();
}

Nanos Hub::NextDeadline() const {
  std::lock_guard lock(mutex_);
  return std::min(deadlines_.empty() ? io::kNever : deadlines_.begin()->first, next_tick_);
}

// Calls f on the object, if it is still there, while Remove waits.
template <typename F>
bool Hub::Call(uint64_t id, F f) {
  Watched* w = nullptr;
  {
    std::lock_guard lock(mutex_);
    const auto it = registry_.find(id);
    if (it == registry_.end()) return false;
    w = it->second;
    busy_ = id;
  }
  f(w);
  {
    std::lock_guard lock(mutex_);
    busy_ = 0;
  }
  idle_.notify_all();
  return true;
}

bool Hub::Turn(Nanos deadline) {
  std::array<io::Ready, 64> ready;
  {
    std::lock_guard lock(mutex_);
    turner_ = std::this_thread::get_id();
    // What was added since the caller asked NextDeadline counts too.
    deadline = std::min(
        {deadline, deadlines_.empty() ? io::kNever : deadlines_.begin()->first, next_tick_});
    sleeping_until_ = deadline;
  }
  const size_t n = poller().Wait(ready, deadline);
  wakeups_.fetch_add(1, std::memory_order_relaxed);
  {
    std::lock_guard lock(mutex_);
    sleeping_until_ = 0;
  }
  for (size_t i = 0; i < n; ++i) {
    Call(ready[i].tag, [&](Watched* w) { w->OnReady(ready[i].readable, ready[i].writable); });
  }
  bool did = n > 0;
  const Nanos now = Now();
  RunDeadlines(now, &did);
  RunTicks(now, &did);
  std::vector<std::unique_ptr<Watched>> retired;
  {
    std::lock_guard lock(mutex_);
    retired.swap(retired_);
    turner_ = {};
  }
  return did;
}

void Hub::RunDeadlines(Nanos now, bool* did) {
  for (;;) {
    uint64_t id = 0;
    {
      std::lock_guard lock(mutex_);
      if (deadlines_.empty() || deadlines_.begin()->first > now) return;
      id = deadlines_.begin()->second;
      Arm(registry_.at(id), io::kNever);  // Remove takes the deadline, too
    }
    *did = true;
    Call(id, [](Watched* w) { w->OnDeadline(); });
  }
}

void Hub::RunTicks(Nanos now, bool* did) {
  std::vector<uint64_t> hot;
  {
    std::lock_guard lock(mutex_);
    if (now < next_tick_) return;
    hot = hot_;
    next_tick_ = hot_.empty() ? io::kNever : now + kTick;
  }
  // A tick may hand a socket back to the poller, which may have something to say of it at once.
  for (const uint64_t id : hot) *did |= Call(id, [](Watched* w) { w->OnTick(); });
}

}  // namespace verbena::fallback
