// SPDX-License-Identifier: Apache-2.0
// One provider's surroundings: its streams, its poller, and who turns the crank.
#pragma once

#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "fallback/io/datagrams.h"
#include "fallback/io/io.h"

namespace verbena::io {

// A crank: what a provider wants called again and again. Returns true if anything happened.
// Never blocks past `deadline`, and waits at most once in a turn (Poller::Wait), so that one Wake
// ends it. NextDeadline is called between turns, on the thread that turns.
class Service {
 public:
  virtual ~Service() = default;
  virtual bool Turn(Nanos deadline) = 0;
  virtual Nanos NextDeadline() const = 0;  // kNever: none
};

class World {
 public:
  virtual ~World() = default;
  virtual Streams& streams() = 0;
  virtual Datagrams* datagrams() { return nullptr; }  // null: it has none
  virtual Poller& poller() = 0;
  // Numbers that nobody else can guess; a simulated world's are its seed's.
  virtual void Random(std::span<uint8_t> out) = 0;
  // Whether its sockets are descriptors of this process, which epoll(7) takes.
  virtual bool descriptors() const = 0;

  // From here to Stop the world turns `service`: on a thread of its own (kernel), or whenever
  // somebody Awaits or Nudges (simulated). Stop returns when no turn is under way or to come.
  virtual void Start(Service* service) = 0;
  virtual void Stop(Service* service) = 0;

  // Blocks until ready() or `deadline`; ready()'s last answer. Changed() makes waiters look again.
  virtual bool Await(absl::FunctionRef<bool()> ready, Nanos deadline) = 0;
  virtual void Changed() = 0;

  // Called by a poll that found nothing: in a simulated world this turns every service once and,
  // if nothing happens, lets time pass to the next event. In the kernel's world: nothing.
  virtual void Nudge() = 0;
};

}  // namespace verbena::io
