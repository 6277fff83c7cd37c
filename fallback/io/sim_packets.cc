// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/sim_packets.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

namespace verbena::io {
namespace {

constexpr uint8_t kHops = 64;

bool IsGroup(const Ip& ip) {
  return IsV4(ip) ? ip[kMappedBytes] >> 4 == 14 : ip[0] == 0xff;  // RFC 5771, RFC 4291 2.7
}

bool IsLoopback(const Ip& ip) {
  return IsV4(ip) ? ip[kMappedBytes] == 127
                  : ip == Ip{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
}

}  // namespace

uint16_t SimPackets::FreePort(const Address& node) const {
  for (uint16_t port = 49152;; ++port) {
    const bool taken = std::any_of(ports_.begin(), ports_.end(), [&](const auto& each) {
      return each.second.node == node && each.second.port == port;
    });
    if (!taken) return port;
  }
}

bool SimPackets::Open(Socket socket, int world, const Address& node, uint16_t port, bool shared) {
  for (const auto& [other, each] : ports_) {
    if (port != 0 && each.node == node && each.port == port && !(shared && each.shared)) {
      return false;
    }
  }
  Port made;
  made.world = world;
  made.node = node;
  made.port = port != 0 ? port : FreePort(node);
  made.shared = shared;
  ports_.emplace(socket, std::move(made));
  return true;
}

void SimPackets::CloseAll(int world) {
  std::erase_if(ports_, [&](const auto& each) { return each.second.world == world; });
}

bool SimPackets::Reaches(const Port& from, const Port& to, const Outgoing& d) const {
  if (to.port != d.to.port || around_.Apart(from.node, to.node)) return false;
  if (IsGroup(d.to.ip)) return to.groups.count(d.to.ip) != 0;
  if (to.node.bytes() == d.to.ip) return true;
  return IsLoopback(d.to.ip) && to.node == from.node;
}

// A full buffer drops, as the kernel's does.
void SimPackets::Deliver(const Port& from, const Outgoing& d, Port* to) {
  Packet packet;
  for (const iovec& piece : d.pieces) {
    packet.bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
  }
  if (to->bytes + packet.bytes.size() > options_.datagram_capacity) return;
  packet.from = d.from == Ip{} ? from.node.bytes() : d.from;
  packet.to = IsGroup(d.to.ip) ? d.to.ip : to->node.bytes();
  packet.traffic_class = d.traffic_class;
  packet.hop_limit = d.hop_limit != 0 ? d.hop_limit : kHops;
  to->bytes += packet.bytes.size();
  to->in.emplace(around_.ArrivalTime(), std::move(packet));
}

int SimPackets::Send(Socket socket, std::span<const Outgoing> datagrams) {
  const auto from = ports_.find(socket);
  if (from == ports_.end()) return -EBADF;
  const size_t count = std::min(datagrams.size(), Datagrams::kMost);
  for (size_t i = 0; i < count; ++i) {
    if (around_.Happens(options_.would_block)) {
      ++injected_.would_blocks;
      return i == 0 ? -EAGAIN : static_cast<int>(i);
    }
    for (auto& [other, to] : ports_) {
      if (!Reaches(from->second, to, datagrams[i])) continue;
      ++injected_.datagrams;
      if (around_.Happens(options_.datagram_loss)) {
        ++injected_.losses;
        continue;
      }
      Deliver(from->second, datagrams[i], &to);
      if (around_.Happens(options_.datagram_duplication)) {
        ++injected_.duplicates;
        Deliver(from->second, datagrams[i], &to);
      }
    }
  }
  return static_cast<int>(count);
}

int SimPackets::Receive(Socket socket, std::span<Incoming> datagrams) {
  const auto found = ports_.find(socket);
  if (found == ports_.end()) return -EBADF;
  Port& port = found->second;
  int count = 0;
  for (Incoming& d : datagrams.first(std::min(datagrams.size(), Datagrams::kMost))) {
    const auto first = port.in.begin();
    if (first == port.in.end() || first->first > around_.Now()) break;
    const Packet& packet = first->second;
    d.size = std::min(packet.bytes.size(), d.into.size());
    d.cut = packet.bytes.size() > d.into.size();
    std::memcpy(d.into.data(), packet.bytes.data(), d.size);
    d.from = packet.from;
    d.to = packet.to;
    d.traffic_class = packet.traffic_class;
    d.hop_limit = packet.hop_limit;
    port.bytes -= packet.bytes.size();
    port.in.erase(first);
    ++count;
  }
  return count == 0 ? -EAGAIN : count;
}

absl::Status SimPackets::Join(Socket socket, const Ip& group) {
  const auto found = ports_.find(socket);
  if (found == ports_.end()) return absl::InvalidArgumentError("join multicast group: no socket");
  found->second.groups.insert(group);
  return absl::OkStatus();
}

absl::Status SimPackets::Leave(Socket socket, const Ip& group) {
  const auto found = ports_.find(socket);
  if (found == ports_.end() || found->second.groups.erase(group) == 0) {
    return absl::NotFoundError("leave multicast group: it is not joined");
  }
  return absl::OkStatus();
}

bool SimPackets::Readable(Socket socket) const {
  const auto found = ports_.find(socket);
  return found != ports_.end() && !found->second.in.empty() &&
         found->second.in.begin()->first <= around_.Now();
}

Address SimPackets::Local(Socket socket) const {
  Address address = ports_.at(socket).node;
  address.set_port(ports_.at(socket).port);
  return address;
}

Nanos SimPackets::NextEvent() const {
  Nanos next = kNever;
  for (const auto& [socket, port] : ports_) {
    const auto later = port.in.upper_bound(around_.Now());
    if (later != port.in.end()) next = std::min(next, later->first);
  }
  return next;
}

}  // namespace verbena::io
