// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/sim_pipe.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace verbena::io {

void SimPipe::Push(std::string bytes, Nanos sent, Nanos arrives) {
  if (!flight_.empty()) arrives = std::max(arrives, flight_.back().arrives);
  flight_bytes_ += bytes.size();
  flight_.push_back({std::move(bytes), sent, arrives});
}

void SimPipe::Finish(Nanos arrives) {
  if (finishing() || breaking()) return;
  finish_at_ = flight_.empty() ? arrives : std::max(arrives, flight_.back().arrives);
}

void SimPipe::Break(Nanos arrives) {
  if (breaking()) return;
  if (!flight_.empty()) arrives = std::max(arrives, flight_.back().arrives);
  if (finishing()) arrives = std::max(arrives, finish_at_);
  break_at_ = arrives;
}

void SimPipe::DropFlight() {
  flight_.clear();
  flight_bytes_ = 0;
  if (!finished_) finish_at_ = kNever;  // the FIN was under way, too
}

void SimPipe::Postpone(Nanos earliest) {
  for (Segment& each : flight_) each.arrives = std::max(each.arrives, earliest);
  if (finishing()) finish_at_ = std::max(finish_at_, earliest);
  if (breaking()) break_at_ = std::max(break_at_, earliest);
}

void SimPipe::Arrive(Nanos now) {
  while (!flight_.empty() && flight_.front().arrives <= now) {
    // Forget what was taken before the buffer grows beyond what is in use.
    if (taken_ > arrived_.size() / 2) {
      arrived_.erase(0, taken_);
      taken_ = 0;
    }
    arrived_ += flight_.front().bytes;
    flight_bytes_ -= flight_.front().bytes.size();
    flight_.pop_front();
  }
  if (finish_at_ <= now) finished_ = true;
  if (break_at_ <= now) broken_ = true;
}

ssize_t SimPipe::Take(std::span<const iovec> into, size_t limit) {
  size_t total = 0;
  for (const iovec& piece : into) {
    const size_t count = std::min({piece.iov_len, limit - total, arrived()});
    if (count == 0) continue;
    // By the kernel, so that memory that is not there is an error here as it is in recvmsg(2).
    const iovec from{arrived_.data() + taken_, count};
    const iovec to{piece.iov_base, count};
    if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != static_cast<ssize_t>(count)) {
      return total > 0 ? static_cast<ssize_t>(total) : -EFAULT;
    }
    taken_ += count;
    total += count;
  }
  return static_cast<ssize_t>(total);
}

Nanos SimPipe::NextArrival() const {
  if (!flight_.empty()) return flight_.front().arrives;
  if (finishing() && !finished_) return finish_at_;
  if (breaking() && !broken_) return break_at_;
  return kNever;
}

Nanos SimPipe::OldestSent() const { return flight_.empty() ? kNever : flight_.front().sent; }

}  // namespace verbena::io
