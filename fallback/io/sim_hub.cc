// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/sim_hub.h"

#include <stdio.h>
#include <sys/single_threaded.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace verbena::io {
namespace {

// A round of turns takes time: services that are busy for ever still reach their deadlines.
constexpr Nanos kTurnCost = 1'000;
// Nudge jumps no farther; nor does Await at once, when the process has several threads.
constexpr Nanos kNear = 1'000'000;
// How long a thread sleeps when nothing can happen, before it looks again.
constexpr Nanos kRealTick = 10'000'000;

// The hub whose services this thread is turning: a turn that comes back here must not turn again.
thread_local const SimHub* turning = nullptr;

}  // namespace

void SimHub::ChangedLocked() {
  // What a turn does is told by its result. A service that reports a change in every idle turn
  // would keep Await awake for ever.
  if (turning == this) return;
  ++changes;
  changed.notify_all();
}

void SimHub::Changed() {
  std::lock_guard lock(mutex);
  ChangedLocked();
}

void SimHub::Start(Service* service) {
  // Within a turn, this thread holds the mutex.
  std::unique_lock turn(turn_mutex, std::defer_lock);
  if (turning != this) turn.lock();
  services.push_back(service);
  Changed();
}

void SimHub::Stop(Service* service) {
  std::unique_lock turn(turn_mutex, std::defer_lock);
  if (turning != this) turn.lock();
  std::erase(services, service);
}

// In an order that the seed chooses: nobody may rely on being turned first.
bool SimHub::TurnAll() {
  const std::vector<Service*> round = services;
  if (round.empty()) return false;
  size_t first = 0;
  {
    std::lock_guard lock(mutex);
    if (round.size() > 1) first = wire.Below(round.size());
  }
  bool worked = false;
  const SimHub* const outer = turning;  // a test may well bridge two networks
  turning = this;
  for (size_t i = 0; i < round.size(); ++i) {
    Service* const service = round[(first + i) % round.size()];
    // A turn before this one may have stopped it.
    if (std::find(services.begin(), services.end(), service) == services.end()) continue;
    std::unique_lock lock(mutex);
    const Nanos now = wire.now();
    lock.unlock();
    worked |= service->Turn(now);
  }
  turning = outer;
  return worked;
}

Nanos SimHub::NextServiceDeadline() const {
  Nanos next = kNever;
  for (const Service* service : services) next = std::min(next, service->NextDeadline());
  return next;
}

// Later than now. A service's deadline that is over (it did nothing about it) comes round again,
// after the cost of a turn.
Nanos SimHub::NextEventLocked(Nanos service_deadline) const {
  const Nanos now = wire.now();
  if (service_deadline <= now) service_deadline = now + kTurnCost;
  Nanos next = std::min(wire.NextEvent(), service_deadline);
  const auto deadline = deadlines.upper_bound(now);
  if (deadline != deadlines.end()) next = std::min(next, *deadline);
  return next;
}

SimHub::Jump SimHub::TakeStep(bool may_jump_far) {
  // Turning and advancing are one step: else two threads could each let time pass and skip turns.
  std::lock_guard turn(turn_mutex);
  const bool worked = TurnAll();
  const Nanos service_deadline = NextServiceDeadline();
  std::lock_guard lock(mutex);
  if (worked) {
    ChangedLocked();
    wire.AdvanceTo(wire.now() + kTurnCost);
    return {Step::kWorked, kTurnCost};
  }
  const Nanos next = NextEventLocked(service_deadline);
  if (next == kNever) return {Step::kIdle, 0};
  const Nanos by = next - wire.now();
  if (!__libc_single_threaded && by > kNear && !may_jump_far) return {Step::kFar, by};
  wire.AdvanceTo(next);
  return {Step::kAdvanced, by};
}

bool SimHub::WaitForChange(uint64_t seen, Nanos real) {
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, std::chrono::nanoseconds(real), [&] { return changes != seen; });
}

bool SimHub::Await(absl::FunctionRef<bool()> ready, Nanos deadline) {
  if (turning == this) return ready();  // a turn must not wait; its own end may be what is awaited
  std::multiset<Nanos>::iterator registered;
  {
    std::lock_guard lock(mutex);
    registered = deadlines.insert(deadline);
  }
  Nanos idle = 0;
  bool far = false;
  bool result = false;
  for (;;) {
    result = ready();
    if (result) break;
    std::unique_lock lock(mutex);
    if (wire.now() >= deadline) break;
    lock.unlock();

    const Jump jump = TakeStep(far);
    far = false;
    if (jump.step == Step::kWorked || jump.step == Step::kAdvanced) {
      idle = 0;
      continue;
    }
    lock.lock();
    const uint64_t seen = changes;
    lock.unlock();
    // Once more after `changes` was read, so that a change in between is not slept through.
    result = ready();
    if (result) break;
    if (jump.step == Step::kFar) {
      // Other threads get real time to act before virtual time-outs strike, more for longer ones.
      far = !WaitForChange(seen, std::clamp<Nanos>(jump.by / 20, kNear, 100 * kNear));
      continue;
    }
    if (!WaitForChange(seen, kRealTick)) idle += kRealTick;
    if (idle >= options.idle_real_ms * Nanos{1'000'000}) {
      fprintf(stderr, "simulated network (seed %llu): deadlock: nothing will ever happen\n",
              static_cast<unsigned long long>(options.seed));
      break;
    }
  }
  std::lock_guard lock(mutex);
  deadlines.erase(registered);
  return result;
}

void SimHub::Nudge() {
  if (turning == this) return;
  std::unique_lock turn(turn_mutex, std::try_to_lock);
  if (!turn.owns_lock()) {
    std::this_thread::yield();  // another thread does the very thing
    return;
  }
  const bool worked = TurnAll();
  const Nanos service_deadline = NextServiceDeadline();
  std::unique_lock lock(mutex);
  if (worked) ChangedLocked();
  Nanos by = kTurnCost;
  if (!worked) {
    const Nanos next = NextEventLocked(service_deadline);
    by = std::clamp(next - wire.now(), kTurnCost, kNear);
    // Nothing but timers ahead: a polling thread must not run through them while another one that
    // has work waits for a processor.
    if (!__libc_single_threaded && by == kNear) {
      const uint64_t seen = changes;
      if (changed.wait_for(lock, std::chrono::microseconds(50), [&] { return changes != seen; })) {
        by = kTurnCost;
      }
    }
  }
  wire.AdvanceTo(wire.now() + by);
}

}  // namespace verbena::io
