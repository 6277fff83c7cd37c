// SPDX-License-Identifier: Apache-2.0
// Who turns the services of a simulated network, and when its clock goes on. All threads come
// through here. Lock order: turn_mutex, then mutex. Neither is held while ready() is asked.
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>
#include <vector>

#include "absl/functional/function_ref.h"
#include "fallback/io/sim_wire.h"
#include "fallback/io/world.h"

namespace verbena::io {

struct SimHub {
  explicit SimHub(const SimOptions& options) : options(options), wire(options) {}

  void Start(Service* service);
  void Stop(Service* service);
  bool Await(absl::FunctionRef<bool()> ready, Nanos deadline);
  void Nudge();

  // Something happened that may concern a thread which sleeps in Await.
  void Changed();
  void ChangedLocked();  // with `mutex`

  const SimOptions options;
  mutable std::mutex mutex;
  SimWire wire;  // guarded by mutex, as all up to turn_mutex

  std::condition_variable changed;
  uint64_t changes = 0;
  std::multiset<Nanos> deadlines;  // of the Awaits under way: the clock does not jump past them

  std::mutex turn_mutex;
  std::vector<Service*> services;  // guarded by turn_mutex

 private:
  enum class Step { kWorked, kAdvanced, kFar, kIdle };
  struct Jump {
    Step step;
    Nanos by;  // kFar: how far the next event is
  };

  Jump TakeStep(bool may_jump_far);
  bool TurnAll();                                       // with turn_mutex
  Nanos NextServiceDeadline() const;                    // with turn_mutex
  Nanos NextEventLocked(Nanos service_deadline) const;  // with mutex
  bool WaitForChange(uint64_t seen, Nanos real);        // false: none came
};

}  // namespace verbena::io
