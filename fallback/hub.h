// SPDX-License-Identifier: Apache-2.0
// The service: one per device, turned by its thread (or by the simulated world). Looks after every
// socket that nobody polls, after timers, and after sockets that only have to be read to their end.
// It sleeps in the kernel when there is nothing to do, and ticks only while queue pairs are hot.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "fallback/io/world.h"

namespace verbena::fallback {

using io::Nanos;

using Deadlines = std::set<std::pair<Nanos, uint64_t>>;  // when, and whose

// What the hub calls, on the turning thread, with no lock held.
class Watched {
 public:
  virtual ~Watched() = default;
  virtual void OnReady(bool readable, bool writable) = 0;
  virtual void OnDeadline() = 0;
  virtual void OnTick() {}  // while hot

 private:
  friend class Hub;
  uint64_t id_ = 0;
  std::atomic<Nanos> deadline_ = io::kNever;
  Deadlines::node_type unarmed_;  // its place among the deadlines while it has none
  bool hot_ = false;
};

class Hub final : public io::Service {
 public:
  explicit Hub(io::World* world) : world_(world) {}
  ~Hub() override;

  io::Streams& streams() { return world_->streams(); }
  io::Poller& poller() { return world_->poller(); }
  io::World& world() { return *world_; }
  Nanos Now() const { return world_->poller().Now(); }
  Nanos In(absl::Duration timeout) const {  // the moment when it is over
    return timeout == absl::InfiniteDuration() ? io::kNever
                                               : Now() + absl::ToInt64Nanoseconds(timeout);
  }

  // From Add to Remove `w` may be called. Remove returns when no call is under way or to come
  // (from inside a call of its own it returns at once).
  void Add(Watched* w);
  void Remove(Watched* w);
  void SetDeadline(Watched* w, Nanos deadline);  // kNever: none
  // The service calls OnDeadline soon, if the object is still there. `id` outlives the object.
  void Poke(uint64_t id);
  static uint64_t IdOf(const Watched& w) { return w.id_; }
  void SetHot(Watched* w, bool hot);  // OnTick every kTick

  // Readiness of a socket, reported to `w`.
  void Watch(Watched* w, io::Socket socket, bool read, bool write);
  void WatchEdges(Watched* w, int descriptor) { poller().WatchEdges(descriptor, w->id_); }
  void ChangeWatch(Watched* w, io::Socket socket, bool read, bool write);

  // Takes the object over; destroys it when the turn is over.
  void Retire(std::unique_ptr<Watched> w);
  // Takes the socket over: sends `rest`, half-closes, reads and discards to the end, closes; all
  // within a second, so that what the peer still has to read is not destroyed by a reset.
  void Linger(io::Socket socket, std::vector<std::byte> rest);
  bool lingering() const;

  bool Turn(Nanos deadline) override;
  Nanos NextDeadline() const override;
  uint64_t wakeups() const { return wakeups_.load(std::memory_order_relaxed); }

 private:
  static constexpr Nanos kTick = 500'000;  // a hot queue pair that nobody served is taken over

  template <typename F>
  bool Call(uint64_t id, F f);
  void Arm(Watched* w, Nanos deadline);
  void RunDeadlines(Nanos now, bool* did);
  void RunTicks(Nanos now, bool* did);
  void Lingered(const Watched* w);  // it is through

  io::World* const world_;
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  absl::flat_hash_map<uint64_t, Watched*> registry_;
  Deadlines deadlines_;
  std::vector<uint64_t> hot_;
  std::vector<std::unique_ptr<Watched>> retired_;
  absl::flat_hash_map<const Watched*, std::unique_ptr<Watched>> lingerers_;
  uint64_t next_id_ = 1;
  uint64_t busy_ = 0;  // whose call is under way
  std::thread::id turner_;
  Nanos sleeping_until_ = 0;  // of the turning thread
  Nanos next_tick_ = io::kNever;
  std::atomic<uint64_t> wakeups_{0};

  friend class Lingerer;
};

}  // namespace verbena::fallback
