// SPDX-License-Identifier: Apache-2.0
// Nodes, set-up and close of connections, partitions. Bytes and time are in sim_wire.cc.
#include <errno.h>

#include <algorithm>

#include "fallback/io/sim_wire.h"

namespace verbena::io {
namespace {

constexpr Nanos kSynRetry = 1'000'000'000;  // Linux's first

Address WithPort(Address address, uint16_t port) {
  address.set_port(port);
  return address;
}

}  // namespace

SimNode SimWire::AddNode(const Address& address) {
  nodes_.push_back({next_world_++, WithPort(address, 0)});
  return nodes_.back();
}

void SimWire::RemoveNode(const SimNode& node) {
  std::vector<Socket> left;
  for (const auto& [socket, end] : ends_) {
    if (end.node.world == node.world) left.push_back(socket);
  }
  for (Socket socket : left) Close(socket, true);
  packets_.CloseAll(node.world);
  std::erase_if(nodes_, [&](const SimNode& each) { return each.world == node.world; });
}

// The node (port 0) that `address` means to `node`. Known addresses first: a network may well be
// made of 127.0.0.1, 127.0.0.2 …
Address SimWire::Resolve(const SimNode& node, const Address& address) const {
  const Address ip = WithPort(address, 0);
  for (const SimNode& each : nodes_) {
    if (each.address == ip) return ip;
  }
  return ip.empty() || ip.is_any() || ip.is_loopback() ? node.address : ip;
}

bool SimWire::PortTaken(const Address& local, bool listeners_too) const {
  return std::any_of(ends_.begin(), ends_.end(), [&](const auto& entry) {
    const End& end = entry.second;
    // An accepted connection has its listener's port, and does not keep others from listening.
    const bool counts = end.role == Role::kListener ? listeners_too : !end.from.empty();
    return counts && end.local.port() == local.port() &&
           Resolve(end.node, end.local) == WithPort(local, 0);
  });
}

uint16_t SimWire::FreePort(const Address& node) {
  for (;;) {
    const uint16_t port = next_port_;
    next_port_ = next_port_ == 65535 ? 49152 : next_port_ + 1;
    const bool taken = std::any_of(ends_.begin(), ends_.end(), [&](const auto& entry) {
      return entry.second.node.address == node && entry.second.local.port() == port;
    });
    if (!taken) return port;
  }
}

Socket SimWire::Add(End end) {
  const Socket socket = next_socket_++;
  ends_.emplace(socket, std::move(end));
  return socket;
}

absl::StatusOr<Socket> SimWire::Connect(const SimNode& node, const Address& to,
                                        const Address& from) {
  const auto refuse = [&](int error) {
    return SocketError(SocketAction::kConnect, to, from, error);
  };
  if (!from.empty() && from.family() != to.family()) return refuse(EAFNOSUPPORT);
  if (!(Resolve(node, from) == node.address)) return refuse(EADDRNOTAVAIL);
  const Address target = WithPort(Resolve(node, to), to.port());
  if (target.family() != node.address.family()) return refuse(ENETUNREACH);
  Address local = WithPort(node.address, from.port());
  if (from.port() != 0 && PortTaken(local, true)) return refuse(EADDRINUSE);
  if (from.port() == 0) local.set_port(FreePort(node.address));

  End end;
  end.node = node;
  end.role = Role::kConnecting;
  end.local = local;
  end.peer = target;
  end.from = from;
  end.started = now_;
  end.decided = Arrival() + std::max<Nanos>(1, options_.latency);  // there and back
  return Add(std::move(end));
}

// SYN and its answer in one: the listener is looked for when the answer arrives.
void SimWire::Decide(End& caller, Socket socket) {
  const Address target = WithPort(caller.peer, 0);
  const bool exists = std::any_of(nodes_.begin(), nodes_.end(),
                                  [&](const SimNode& each) { return each.address == target; });
  if (!exists) return Die(caller, EHOSTUNREACH);
  for (auto& [number, listener] : ends_) {
    if (listener.role != Role::kListener || !(listener.node.address == target) ||
        listener.local.port() != caller.peer.port()) {
      continue;
    }
    if (listener.backlog.size() >= listener.backlog_limit) {
      caller.decided = now_ + kSynRetry;
      return;
    }
    End callee;
    callee.node = listener.node;
    callee.local = caller.peer;
    callee.peer = caller.local;
    callee.other = socket;
    caller.role = Role::kStream;
    caller.other = Add(std::move(callee));
    listener.backlog.push_back(caller.other);
    return;
  }
  Die(caller, ECONNREFUSED);
}

absl::Status SimWire::ConnectResult(Socket socket) {
  End* const end = Find(socket);
  if (end == nullptr) return SocketError(SocketAction::kConnect, {}, {}, EBADF);
  int error = TakeError(*end);
  if (error == 0 && end->role == Role::kConnecting && !end->dead) error = EINPROGRESS;
  if (error == 0) return absl::OkStatus();
  return SocketError(SocketAction::kConnect, end->peer, end->from, error);
}

absl::StatusOr<Socket> SimWire::Listen(const SimNode& node, const Address& at, int backlog) {
  const auto refuse = [&](int error) { return SocketError(SocketAction::kListen, at, {}, error); };
  if (!(Resolve(node, at) == node.address)) return refuse(EADDRNOTAVAIL);
  Address local = at;
  if (local.port() == 0) local.set_port(FreePort(node.address));
  if (PortTaken(WithPort(node.address, local.port()), true)) return refuse(EADDRINUSE);
  End end;
  end.node = node;
  end.role = Role::kListener;
  end.local = local;
  end.backlog_limit = static_cast<size_t>(std::max(1, backlog));
  return Add(std::move(end));
}

int SimWire::Accept(Socket listener) {
  End* const end = Find(listener);
  if (end == nullptr) return -EBADF;
  if (end->role != Role::kListener) return -EINVAL;
  if (end->backlog.empty()) return -EAGAIN;
  const Socket socket = end->backlog.front();
  end->backlog.pop_front();
  return socket;
}

absl::StatusOr<Socket> SimWire::OpenDatagrams(const SimNode& node, uint16_t port, bool shared) {
  const Socket socket = next_socket_++;
  if (packets_.Open(socket, node.world, node.address, port, shared)) return socket;
  return absl::UnavailableError("datagram socket: another program has the port");
}

void SimWire::Close(Socket socket, bool reset) {
  packets_.Close(socket);
  const auto found = ends_.find(socket);
  if (found == ends_.end()) return;
  const End end = std::move(found->second);
  ends_.erase(found);
  for (Socket waiting : end.backlog) Close(waiting, true);
  End* const other = Find(end.other);
  if (other == nullptr) return;
  other->other = kNoSocket;
  if (end.in.in_flight() != 0) other->vanished_since = now_;
  if (reset) {
    other->in.DropFlight();
    other->in.Break(Arrival());
    return;
  }
  // Linux sends a RST in place of the FIN when bytes were left unread, and for bytes that come
  // after the close. What was sent before arrives all the same.
  if (end.in.arrived() != 0) {
    other->in.Break(Arrival());
    return;
  }
  other->in.Finish(Arrival());
  if (end.in.in_flight() != 0) other->in.Break(end.in.NextArrival() + Arrival() - now_);
}

void SimWire::SetLiveness(Socket socket, const Liveness& liveness) {
  if (End* const end = Find(socket)) end->liveness = liveness;
}

Address SimWire::Local(Socket socket) const {
  if (packets_.Has(socket)) return packets_.Local(socket);
  const End* const end = Find(socket);
  return end == nullptr ? Address() : end->local;
}

// As getpeername: nothing before the connection stands, or after it broke.
Address SimWire::Peer(Socket socket) const {
  const End* const end = Find(socket);
  return end == nullptr || end->role != Role::kStream || end->dead ? Address() : end->peer;
}

SimWire::Pair SimWire::Between(const Address& a, const Address& b) {
  return std::minmax(a.ip(), b.ip());
}

Nanos SimWire::HeldSince(const End& end) const {
  if (partitions_.empty()) return kNever;
  const auto found = partitions_.find(Between(end.node.address, end.peer));
  return found == partitions_.end() ? kNever : found->second;
}

void SimWire::Partition(const Address& a, const Address& b, bool on) {
  if (on) {
    partitions_.emplace(Between(a, b), now_);
    return;
  }
  partitions_.erase(Between(a, b));
  // What was kept sets out again now, in its order.
  const Nanos earliest = now_ + std::max<Nanos>(1, options_.latency);
  for (auto& [socket, end] : ends_) {
    if (end.role == Role::kListener || !(Between(end.node.address, end.peer) == Between(a, b))) {
      continue;
    }
    end.in.Postpone(earliest);
    if (end.role == Role::kConnecting) end.decided = std::max(end.decided, earliest);
  }
}

}  // namespace verbena::io
