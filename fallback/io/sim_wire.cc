// SPDX-License-Identifier: Apache-2.0
// Bytes: send, receive, the end and the break; readiness; the clock. Set-up is in
// sim_wire_control.cc.
#include "fallback/io/sim_wire.h"

#include <errno.h>

#include <algorithm>
#include <string>

namespace verbena::io {
namespace {

// Linux's when nothing else is set: tcp_syn_retries = 6 and tcp_retries2 = 15.
constexpr Nanos kConnectTimeout = 127'000'000'000;
constexpr Nanos kSendTimeout = 924'000'000'000;

size_t Total(std::span<const iovec> pieces) {
  size_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  return total;
}

std::string Gather(std::span<const iovec> pieces, size_t limit) {
  std::string bytes;
  bytes.reserve(limit);
  for (const iovec& piece : pieces) {
    const size_t count = std::min(piece.iov_len, limit - bytes.size());
    if (count != 0) bytes.append(static_cast<const char*>(piece.iov_base), count);
  }
  return bytes;
}

}  // namespace

bool SimWire::Chance(double probability) {
  return static_cast<double>(random_() >> 11) * 0x1p-53 < probability;
}

Nanos SimWire::Arrival() {
  Nanos arrives = now_ + std::max<Nanos>(1, options_.latency);
  if (Chance(options_.delay)) {
    ++injected_.delays;
    arrives += 1 + static_cast<Nanos>(Below(std::max<Nanos>(1, options_.max_delay)));
  }
  return arrives;
}

SimWire::End* SimWire::Find(Socket socket) {
  const auto found = ends_.find(socket);
  return found == ends_.end() ? nullptr : &found->second;
}
const SimWire::End* SimWire::Find(Socket socket) const {
  return const_cast<SimWire*>(this)->Find(socket);
}

ssize_t SimWire::Send(Socket socket, std::span<const iovec> from) {
  End* const end = Find(socket);
  if (end == nullptr) return -EBADF;
  if (end->role == Role::kListener) return -ENOTCONN;
  if (end->error != 0) return -TakeError(*end);
  if (end->dead || end->finished_sending) return -EPIPE;
  if (end->role == Role::kConnecting || end->stalled > now_) return -EAGAIN;
  if (Chance(options_.would_block)) {
    ++injected_.would_blocks;
    end->stalled = now_ + 1 + static_cast<Nanos>(Below(std::max<Nanos>(1, options_.stall)));
    return -EAGAIN;
  }
  if (Chance(options_.reset_probability) && Reset(socket)) return -TakeError(*end);

  const size_t wanted = Total(from);
  End* const other = Find(end->other);
  if (other == nullptr) {
    // As the kernel: the send succeeds, the answer is a RST.
    end->vanished_since = std::min(end->vanished_since, now_);
    end->in.Break(now_ + 2 * std::max<Nanos>(1, options_.latency));
    return static_cast<ssize_t>(wanted);
  }
  const size_t used = other->in.size();
  if (used >= options_.capacity) return -EAGAIN;
  size_t count = std::min(wanted, options_.capacity - used);
  if (count > 1 && Chance(options_.short_write)) {
    ++injected_.short_writes;
    count = 1 + Below(count - 1);
  }
  other->in.Push(Gather(from, count), now_, Arrival());
  return static_cast<ssize_t>(count);
}

ssize_t SimWire::Receive(Socket socket, std::span<const iovec> into) {
  End* const end = Find(socket);
  if (end == nullptr) return -EBADF;
  if (end->role == Role::kListener) return -ENOTCONN;
  size_t count = std::min(end->in.arrived(), Total(into));
  if (end->in.arrived() == 0) {
    // In Linux's order: the peer's end of stream outlives a later error.
    if (end->in.finished()) return 0;
    if (end->error != 0) return -TakeError(*end);
    return end->dead ? 0 : -EAGAIN;
  }
  if (count > 1 && Chance(options_.partial_read)) {
    ++injected_.partial_reads;
    count = Below(4) == 0 ? 1 : 1 + Below(count - 1);
  }
  return end->in.Take(into, count);
}

void SimWire::FinishSending(Socket socket) {
  End* const end = Find(socket);
  if (end == nullptr || end->role != Role::kStream || end->finished_sending) return;
  end->finished_sending = true;
  if (End* const other = Find(end->other)) other->in.Finish(Arrival());
}

bool SimWire::Readable(Socket socket) const {
  if (packets_.Has(socket)) return packets_.Readable(socket);
  const End* const end = Find(socket);
  if (end == nullptr) return false;
  if (end->role == Role::kListener) return !end->backlog.empty();
  return end->dead || end->error != 0 || end->in.arrived() != 0 || end->in.finished();
}

bool SimWire::Writable(Socket socket) const {
  if (packets_.Has(socket)) return true;
  const End* const end = Find(socket);
  if (end == nullptr || end->role == Role::kListener) return false;
  if (end->dead || end->error != 0) return true;
  if (end->role == Role::kConnecting || end->stalled > now_) return false;
  const End* const other = Find(end->other);
  return end->finished_sending || other == nullptr || other->in.size() < options_.capacity;
}

bool SimWire::Broken(Socket socket) const {
  const End* const end = Find(socket);
  return end != nullptr && end->role != Role::kListener && (end->dead || end->error != 0);
}

// The end of one side. The other side is not told: it learns from its own RST or silence.
void SimWire::Die(End& end, int error) {
  end.dead = true;
  end.error = error;
  End* const other = Find(std::exchange(end.other, kNoSocket));
  if (other == nullptr) return;
  other->other = kNoSocket;
  if (end.in.in_flight() != 0) other->vanished_since = std::min(other->vanished_since, now_);
  other->in.DropFlight();
}

void SimWire::Break(End& end) { Die(end, end.in.finished() ? EPIPE : ECONNRESET); }

bool SimWire::Reset(Socket socket) {
  End* const end = Find(socket);
  if (end == nullptr || end->role != Role::kStream) return false;
  End* const other = Find(end->other);
  if (other == nullptr) return false;
  ++injected_.resets;
  end->in.DropFlight();
  other->in.DropFlight();
  Break(*end);
  Break(*other);
  return true;
}

bool SimWire::ResetOne() {
  std::vector<Socket> whole;
  for (const auto& [socket, end] : ends_) {
    if (end.role == Role::kStream && Find(end.other) != nullptr) whole.push_back(socket);
  }
  return !whole.empty() && Reset(whole[Below(whole.size())]);
}

// When silence has lasted too long for this end; kNever: it has no reason to be impatient.
Nanos SimWire::SilenceEnds(const End& end) const {
  const Nanos bound = end.liveness.user_timeout;
  if (end.dead || end.role == Role::kListener) return kNever;
  if (end.role == Role::kConnecting) return end.started + (bound > 0 ? bound : kConnectTimeout);
  const Nanos held = HeldSince(end);
  if (held == kNever) return kNever;
  const End* const other = Find(end.other);
  const Nanos oldest = other != nullptr ? other->in.OldestSent() : end.vanished_since;
  // Linux probes an idle connection only while nothing is unacknowledged.
  if (oldest != kNever) return oldest + (bound > 0 ? bound : kSendTimeout);
  return end.liveness.keepalive > 0 ? held + end.liveness.keepalive : kNever;
}

Nanos SimWire::NextEvent() const {
  Nanos next = packets_.NextEvent();
  for (const auto& [socket, end] : ends_) {
    if (end.dead || end.role == Role::kListener) continue;
    next = std::min(next, SilenceEnds(end));
    if (end.stalled > now_) next = std::min(next, end.stalled);
    if (HeldSince(end) != kNever) continue;
    next = std::min(next, end.role == Role::kConnecting ? end.decided : end.in.NextArrival());
  }
  return next == kNever ? kNever : std::max(next, now_ + 1);
}

// What is due at now_ happens.
void SimWire::Settle() {
  for (auto& [socket, end] : ends_) {
    if (end.dead || end.role == Role::kListener) continue;
    if (HeldSince(end) == kNever) {
      if (end.role == Role::kConnecting && end.decided <= now_) Decide(end, socket);
      end.in.Arrive(now_);
      if (end.in.broken() && !end.dead) Break(end);
    }
    if (!end.dead && SilenceEnds(end) <= now_) Die(end, ETIMEDOUT);
  }
}

void SimWire::AdvanceTo(Nanos when) {
  for (Nanos next = NextEvent(); next <= when && next != kNever; next = NextEvent()) {
    now_ = next;
    Settle();
  }
  now_ = std::max(now_, when);
}

}  // namespace verbena::io
