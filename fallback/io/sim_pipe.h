// SPDX-License-Identifier: Apache-2.0
// One direction of a simulated connection: bytes under way, then bytes that arrived, then the end
// (FIN) or the break (RST). Order is kept whatever the arrival times asked for. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <deque>
#include <span>
#include <string>

#include "fallback/io/io.h"

namespace verbena::io {

class SimPipe {
 public:
  // Each is put behind what is under way. Nothing can follow a Finish but a Break.
  void Push(std::string bytes, Nanos sent, Nanos arrives);
  void Finish(Nanos arrives);
  void Break(Nanos arrives);

  void DropFlight();              // what has not arrived never will
  void Postpone(Nanos earliest);  // what is under way arrives no sooner than this
  void Arrive(Nanos now);

  // Moves up to `limit` arrived bytes.
  ssize_t Take(std::span<const iovec> into, size_t limit);  // -EFAULT: not a byte could be stored

  size_t arrived() const { return arrived_.size() - taken_; }
  size_t in_flight() const { return flight_bytes_; }
  size_t size() const { return arrived() + in_flight(); }
  bool finishing() const { return finish_at_ != kNever; }
  bool breaking() const { return break_at_ != kNever; }
  bool finished() const { return finished_; }
  bool broken() const { return broken_; }

  Nanos NextArrival() const;  // kNever: nothing is under way
  Nanos OldestSent() const;   // of the bytes under way; kNever: none

 private:
  struct Segment {
    std::string bytes;
    Nanos sent, arrives;
  };
  std::deque<Segment> flight_;
  size_t flight_bytes_ = 0;
  std::string arrived_;
  size_t taken_ = 0;  // of arrived_
  Nanos finish_at_ = kNever, break_at_ = kNever;
  bool finished_ = false, broken_ = false;
};

}  // namespace verbena::io
