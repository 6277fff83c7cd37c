// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/cable_world.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace verbena::bench {

void CableWorld::Random(std::span<uint8_t> out) {
  for (uint8_t& byte : out) byte = random_ += 101;
}

bool CableWorld::Await(absl::FunctionRef<bool()> ready, io::Nanos deadline) {
  while (!ready()) {  // which may take what it has found
    if (now_ >= deadline) return false;
    Turn();
    Pass(100'000);
  }
  return true;
}

io::Socket CableWorld::Add(const io::Address& local, const io::Address& peer) {
  ends_.push_back(std::make_unique<End>());
  ends_.back()->local = local;
  ends_.back()->peer = peer;
  ends_.back()->in = std::make_unique_for_overwrite<std::byte[]>(kCapacity);
  return static_cast<io::Socket>(ends_.size()) - 1;
}

absl::StatusOr<io::Socket> CableWorld::Listen(const io::Address& at, int) { return Add(at, {}); }

absl::StatusOr<io::Socket> CableWorld::Connect(const io::Address& to, const io::Address&) {
  const auto listener = std::ranges::find_if(
      ends_, [&](const auto& end) { return end->peer.empty() && end->local.port() == to.port(); });
  if (listener == ends_.end()) return absl::UnavailableError("nobody listens there");
  End& there = **listener;
  const io::Socket mine = Add(to, to);
  const io::Socket theirs = Add(to, to);
  at(mine).other = theirs;
  at(theirs).other = mine;
  there.backlog.push_back(theirs);
  return mine;
}

int CableWorld::Accept(io::Socket listener) {
  std::vector<io::Socket>& backlog = at(listener).backlog;
  if (backlog.empty()) return -EAGAIN;
  const io::Socket first = backlog.front();
  backlog.erase(backlog.begin());
  return first;
}

ssize_t CableWorld::Receive(io::Socket socket, std::span<const iovec> into) {
  End& end = at(socket);
  if (end.begin == end.end) return end.finished ? 0 : -EAGAIN;
  const size_t before = end.begin;
  for (const iovec& piece : into) {
    const size_t n = std::min(piece.iov_len, end.end - end.begin);
    std::memcpy(piece.iov_base, &end.in[end.begin], n);
    end.begin += n;
  }
  const size_t taken = end.begin - before;
  if (end.begin == end.end) end.begin = end.end = 0;
  return static_cast<ssize_t>(taken);
}

ssize_t CableWorld::Send(io::Socket socket, std::span<const iovec> from) {
  if (at(socket).other == io::kNoSocket) return -EPIPE;
  End& there = at(at(socket).other);
  const size_t before = there.end;
  for (const iovec& piece : from) {
    const size_t n = std::min(piece.iov_len, kCapacity - there.end);
    std::memcpy(&there.in[there.end], piece.iov_base, n);
    there.end += n;
  }
  return there.end == before ? -EAGAIN : static_cast<ssize_t>(there.end - before);
}

void CableWorld::FinishSending(io::Socket socket) {
  if (at(socket).other != io::kNoSocket) at(at(socket).other).finished = true;
}

void CableWorld::Close(io::Socket socket, bool) {
  FinishSending(socket);
  End& end = at(socket);
  if (end.other != io::kNoSocket) at(end.other).other = io::kNoSocket;
  end.other = io::kNoSocket;
  end.watched = false;
  end.in.reset();
}

void CableWorld::Watch(io::Socket socket, uint64_t tag, bool read, bool write) {
  at(socket).watched = true;
  Change(socket, tag, read, write);
}

void CableWorld::Change(io::Socket socket, uint64_t tag, bool read, bool write) {
  at(socket).tag = tag;
  at(socket).read = read;
  at(socket).write = write;
}

size_t CableWorld::Wait(std::span<io::Ready> out, io::Nanos) {
  size_t n = 0;
  for (const auto& end : ends_) {
    if (n == out.size()) break;
    const bool something = end->begin != end->end || end->finished || !end->backlog.empty();
    const bool stream = !end->peer.empty();
    const io::Ready ready{end->tag, end->read && something, end->write && stream};
    if (end->watched && (ready.readable || ready.writable)) out[n++] = ready;
  }
  return n;
}

}  // namespace verbena::bench
