// SPDX-License-Identifier: Apache-2.0
// Moves everything of a channel, or of one server thread: polls, hands completions to whom they
// belong, flushes, and sleeps when there is nothing to do.
//
// One thread at a time leads. That is a caller who waits for an answer alone, since a hop to
// another thread costs more than the call. Of several none does, as they would pass the lead on
// with each answer: the driver's own thread leads then, until one alone has waited for a while, and
// while nobody waits but something is under way. All completions, timers and tasks run on the
// leader, so what only they touch needs no lock.
#pragma once

#include <semaphore.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/context.h"

namespace verbena::rpc {

// How a thread waits that has nothing to do. kSpin: it never sleeps, and has a core for itself.
// kAdaptive: it spins for a while first. kBlock: it sleeps at once.
enum class Wait : uint8_t { kSpin, kAdaptive, kBlock };

struct DriverOptions {
  Wait wait = Wait::kAdaptive;
  absl::Duration spin = absl::Microseconds(50);  // kAdaptive: about what a wake-up costs
  bool always = false;                           // the own thread leads at all times: a server
};

// Whoever is named by WorkCompletion::id.
class Completer {
 public:
  virtual void Complete(const WorkCompletion& wc) = 0;  // on the leader

 protected:
  ~Completer() = default;
};
inline uint64_t IdOf(Completer* completer) { return reinterpret_cast<uint64_t>(completer); }

// Has something to send that waits for the end of the round.
class Flushable {
 public:
  virtual void Flush() = 0;  // any thread
  // The driver's: it will be flushed, and has not been called yet.
  std::atomic<bool> flush_due = false;

 protected:
  ~Flushable() = default;
};

// What connections on one device share.
struct Lane {
  Device* device = nullptr;
  ProtectionDomain domain;
  CompletionChannel channel;
  CompletionQueue completions;
  uint32_t promised = 0;  // entries that its connections may need
};

// A thread that waits for one thing.
struct Waiter {
  Waiter() { sem_init(&woken, 0, 0); }
  ~Waiter() { sem_destroy(&woken); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  std::atomic<bool> done = false;
  bool leads = false;
  // Once: it is done, or is to lead. May go as soon as it was waited for, which a
  // condition_variable may not.
  sem_t woken;
};

class Driver {
 public:
  Driver(Context& context, const DriverOptions& options);
  ~Driver();  // Stop() before what its tasks and completions name goes
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // Made at first use. `entries` more completions may come from now on. Any thread.
  absl::StatusOr<Lane*> LaneOn(Device& device, uint32_t entries);
  void GiveBack(Lane& lane, uint32_t entries);

  void Post(std::function<void()> task);  // run soon, on the leader. Any thread
  // `who` is flushed before the leader looks again, or now if nobody leads. Any thread, while `who`
  // stays.
  void FlushSoon(Flushable& who);
  void Forget(Flushable& who);  // leader; or of one that was never to be flushed

  // `tick` runs on the leader when its time has come, and says when it wants to run again.
  void SetTick(std::function<int64_t(int64_t now_ns)> tick) { tick_ = std::move(tick); }
  void TickBy(int64_t when_ns);                        // any thread
  void Watch(int fd, std::function<void()> readable);  // before anything runs

  void Drive(Waiter& waiter);  // returns when Done(waiter) was called
  void Done(Waiter& waiter);   // leader

  // Something is under way that nobody waits for in Drive(). Any thread.
  void Attend();
  void Unattend() { attended_.fetch_sub(1); }

  void Start();
  void Stop();  // joins the thread; what was posted is run first
  bool OnLeader() const { return leader_.load() == std::this_thread::get_id(); }

 private:
  void Run();
  void Lead(absl::FunctionRef<bool()> over);
  bool Round();
  bool PollLanes();
  bool RunTasks();
  void FlushDirty();
  void FlushOwn();
  void Sleep(absl::FunctionRef<bool()> over);
  void AwaitDescriptors(int64_t timeout_ns);
  void LookAround(int64_t now);
  bool ThreadIsOver(int64_t& idle_since, int64_t& many_ns) const;
  void PassOn();
  void WakeUp();
  bool Needed() const { return attended_.load() > 0 || has_tasks_.load(); }

  static constexpr size_t kMaxLanes = 16;
  static constexpr size_t kBatch = 64;  // completions
  static constexpr uint64_t kWakeTag = ~uint64_t{0};

  Context& context_;
  const DriverOptions options_;
  int epoll_ = -1;
  int wake_ = -1;
  std::vector<std::function<void()>> watches_;
  int64_t watched_ns_ = 0;
  std::function<int64_t(int64_t)> tick_;
  std::atomic<int64_t> next_tick_ns_;

  std::mutex lanes_lock_;
  std::array<std::unique_ptr<Lane>, kMaxLanes> lanes_;
  std::atomic<size_t> lane_count_ = 0;

  std::array<WorkCompletion, kBatch> polled_;  // leader
  std::vector<Flushable*> own_dirty_;          // leader: what it found out by itself

  std::mutex work_lock_;
  std::vector<std::function<void()>> tasks_;
  std::vector<Flushable*> dirty_;
  std::mutex flushing_;  // before work_lock_; while somebody's Flush() runs
  std::atomic<bool> has_tasks_ = false;
  std::atomic<bool> has_dirty_ = false;

  std::mutex turn_;
  bool led_ = false;
  std::atomic<bool> stop_ = false;
  std::vector<Waiter*> waiters_;
  std::atomic<size_t> waiting_ = 0;
  std::condition_variable thread_wanted_;
  std::atomic<int> attended_ = 0;
  std::atomic<bool> running_ = false;  // the leader looks again by itself
  std::atomic<std::thread::id> leader_ = {};
  std::thread thread_;
};

int64_t NowNs();  // of a clock that only goes forward

}  // namespace verbena::rpc
