// SPDX-License-Identifier: Apache-2.0
// On an IPv6 socket for both families, what concerns IPv4 packets is asked for at the level of IP
// and addresses are mapped ones (ipv6(7)): so an address is sixteen bytes everywhere.
#include "fallback/io/kernel_datagrams.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "transport/address.h"

namespace verbena::io {
namespace {

constexpr int kBuffer = 4 << 20;  // bytes that may wait for a reader; the system may grant less
constexpr int kMulticastHops = 64;

void SetOption(int fd, int level, int option, int value) {
  (void)setsockopt(fd, level, option, &value, sizeof(value));
}

bool HasV6() {
  const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  close(fd);
  return true;
}

in_addr V4Of(const Ip& ip) {
  in_addr out;
  std::memcpy(&out, ip.data() + kMappedBytes, sizeof(out));
  return out;
}

Ip Mapped(const in_addr& v4) {
  Ip ip;
  std::copy(std::begin(kMapped), std::end(kMapped), ip.begin());
  std::memcpy(ip.data() + kMappedBytes, &v4, sizeof(v4));
  return ip;
}

in6_addr V6Of(const Ip& ip) {
  in6_addr out;
  std::memcpy(&out, ip.data(), sizeof(out));
  return out;
}

Ip Of(const in6_addr& v6) {
  Ip ip;
  std::memcpy(ip.data(), &v6, sizeof(v6));
  return ip;
}

bool IsZero(const Ip& ip) { return ip == Ip{}; }

// One message of a call, with all that its header points to.
struct Slot {
  sockaddr_in6 name6;
  sockaddr_in name4;
  iovec piece;
  alignas(cmsghdr) char control[160];
};

template <typename T>
void Append(msghdr* message, int level, int type, const T& value) {
  auto* const at = reinterpret_cast<cmsghdr*>(static_cast<char*>(message->msg_control) +
                                              message->msg_controllen);
  at->cmsg_level = level;
  at->cmsg_type = type;
  at->cmsg_len = CMSG_LEN(sizeof(T));
  std::memcpy(CMSG_DATA(at), &value, sizeof(T));
  message->msg_controllen += CMSG_SPACE(sizeof(T));
}

void Prepare(const Outgoing& d, bool v6_socket, Slot* slot, msghdr* message) {
  *message = {};
  message->msg_iov = const_cast<iovec*>(d.pieces.data());  // the call does not write to it
  message->msg_iovlen = d.pieces.size();
  message->msg_control = slot->control;
  const bool v4 = IsV4(d.to.ip);
  if (v6_socket) {
    slot->name6 = {};
    slot->name6.sin6_family = AF_INET6;
    slot->name6.sin6_port = htons(d.to.port);
    slot->name6.sin6_addr = V6Of(d.to.ip);
    slot->name6.sin6_scope_id = d.to.scope;
    message->msg_name = &slot->name6;
    message->msg_namelen = sizeof(slot->name6);
  } else {
    slot->name4 = {};
    slot->name4.sin_family = AF_INET;
    slot->name4.sin_port = htons(d.to.port);
    slot->name4.sin_addr = V4Of(d.to.ip);
    message->msg_name = &slot->name4;
    message->msg_namelen = sizeof(slot->name4);
  }
  if (!IsZero(d.from) && IsV4(d.from) == v4) {
    if (v6_socket) {
      in6_pktinfo info{};
      info.ipi6_addr = V6Of(d.from);
      Append(message, IPPROTO_IPV6, IPV6_PKTINFO, info);
    } else {
      in_pktinfo info{};
      info.ipi_spec_dst = V4Of(d.from);
      Append(message, IPPROTO_IP, IP_PKTINFO, info);
    }
  }
  if (d.traffic_class != 0) {
    const int value = d.traffic_class;
    v4 ? Append(message, IPPROTO_IP, IP_TOS, value)
       : Append(message, IPPROTO_IPV6, IPV6_TCLASS, value);
  }
  if (d.hop_limit != 0) {
    const int value = d.hop_limit;
    v4 ? Append(message, IPPROTO_IP, IP_TTL, value)
       : Append(message, IPPROTO_IPV6, IPV6_HOPLIMIT, value);
  }
  if (message->msg_controllen == 0) message->msg_control = nullptr;
}

template <typename T>
T Data(const cmsghdr* c) {
  T value;
  std::memcpy(&value, CMSG_DATA(c), sizeof(T));
  return value;
}

void Read(msghdr* message, size_t size, Incoming* d) {
  d->size = size;
  d->cut = (message->msg_flags & MSG_TRUNC) != 0;
  const auto* const name = static_cast<const sockaddr*>(message->msg_name);
  if (name->sa_family == AF_INET6) {
    d->from = Of(reinterpret_cast<const sockaddr_in6*>(name)->sin6_addr);
  } else {
    d->from = Mapped(reinterpret_cast<const sockaddr_in*>(name)->sin_addr);
  }
  d->to = {};
  for (const cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr;
       c = CMSG_NXTHDR(message, const_cast<cmsghdr*>(c))) {
    const int level = c->cmsg_level, type = c->cmsg_type;
    if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO) {
      d->to = Of(Data<in6_pktinfo>(c).ipi6_addr);
    } else if (level == IPPROTO_IP && type == IP_PKTINFO) {
      d->to = Mapped(Data<in_pktinfo>(c).ipi_addr);
    } else if (level == IPPROTO_IP && type == IP_TOS) {
      d->traffic_class = Data<uint8_t>(c);
    } else if (level == IPPROTO_IPV6 && type == IPV6_TCLASS) {
      d->traffic_class = static_cast<uint8_t>(Data<int>(c));
    } else if ((level == IPPROTO_IP && type == IP_TTL) ||
               (level == IPPROTO_IPV6 && type == IPV6_HOPLIMIT)) {
      d->hop_limit = static_cast<uint8_t>(Data<int>(c));
    }
  }
}

// The interface with this address; 0: none.
unsigned InterfaceOf(const Ip& ip) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return 0;
  unsigned index = 0;
  for (const ifaddrs* each = all; each != nullptr && index == 0; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    const provider::Address address = provider::Address::From(each->ifa_addr);
    if (!address.empty() && address.bytes() == ip) index = if_nametoindex(each->ifa_name);
  }
  freeifaddrs(all);
  return index;
}

}  // namespace

KernelDatagrams::KernelDatagrams() : v6_(HasV6()) {}

absl::StatusOr<Socket> KernelDatagrams::Open(uint16_t port, bool shared) {
  const int fd = socket(v6_ ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("datagram socket: ", std::strerror(errno),
                     "; raise the limit on descriptors (`ulimit -n`)"));
  }
  if (shared) SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  // More than the limit only for those who may (CAP_NET_ADMIN).
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kBuffer, sizeof(kBuffer)) != 0) {
    SetOption(fd, SOL_SOCKET, SO_RCVBUF, kBuffer);
  }
  SetOption(fd, IPPROTO_IP, IP_PKTINFO, v6_ ? 0 : 1);
  SetOption(fd, IPPROTO_IP, IP_RECVTOS, 1);
  SetOption(fd, IPPROTO_IP, IP_RECVTTL, 1);
  // Only the groups that this socket has joined, not those of others on the same port.
  SetOption(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
  SetOption(fd, IPPROTO_IP, IP_MULTICAST_TTL, kMulticastHops);
  if (v6_) {
    SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    SetOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    SetOption(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    SetOption(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
    SetOption(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
    SetOption(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, kMulticastHops);
  }
  sockaddr_in6 any6{};
  any6.sin6_family = AF_INET6;
  any6.sin6_port = htons(port);
  sockaddr_in any4{};
  any4.sin_family = AF_INET;
  any4.sin_port = htons(port);
  const auto* const at =
      v6_ ? reinterpret_cast<const sockaddr*>(&any6) : reinterpret_cast<const sockaddr*>(&any4);
  if (bind(fd, at, v6_ ? sizeof(any6) : sizeof(any4)) != 0) {
    const int error = errno;
    close(fd);
    return absl::UnavailableError(
        absl::StrCat("datagram socket on port ", port, ": ", std::strerror(error),
                     error == EADDRINUSE ? "; another program has it" : ""));
  }
  return fd;
}

int KernelDatagrams::Send(Socket socket, std::span<const Outgoing> datagrams) {
  std::array<Slot, kMost> slots;
  std::array<mmsghdr, kMost> messages;
  const size_t count = std::min(datagrams.size(), kMost);
  for (size_t i = 0; i < count; ++i) {
    Prepare(datagrams[i], v6_, &slots[i], &messages[i].msg_hdr);
  }
  size_t gone = 0;
  while (gone < count) {
    const int n =
        sendmmsg(socket, &messages[gone], static_cast<unsigned>(count - gone), MSG_NOSIGNAL);
    if (n > 0) {
      gone += static_cast<size_t>(n);
      continue;
    }
    if (errno == EAGAIN || errno == ENOBUFS) break;
    if (errno != EINTR) ++gone;  // no route, nobody there, a filter: lost
  }
  return gone == 0 ? -EAGAIN : static_cast<int>(gone);
}

int KernelDatagrams::Receive(Socket socket, std::span<Incoming> datagrams) {
  std::array<Slot, kMost> slots;
  std::array<mmsghdr, kMost> messages;
  const size_t count = std::min(datagrams.size(), kMost);
  for (size_t i = 0; i < count; ++i) {
    Slot& slot = slots[i];
    msghdr& message = messages[i].msg_hdr;
    message = {};
    slot.name6 = {};
    slot.piece = {datagrams[i].into.data(), datagrams[i].into.size()};
    message.msg_name = &slot.name6;
    message.msg_namelen = sizeof(slot.name6);
    message.msg_iov = &slot.piece;
    message.msg_iovlen = 1;
    message.msg_control = slot.control;
    message.msg_controllen = sizeof(slot.control);
  }
  for (;;) {
    const int n =
        recvmmsg(socket, messages.data(), static_cast<unsigned>(count), MSG_DONTWAIT, nullptr);
    if (n > 0) {
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        Read(&messages[i].msg_hdr, messages[i].msg_len, &datagrams[i]);
      }
      return n;
    }
    // An error that waited on the socket is told once, and is of a datagram that left before.
    if (errno == EAGAIN || errno == ENOMEM) return -EAGAIN;
  }
}

absl::Status KernelDatagrams::Member(Socket socket, const Ip& group, const Ip& at,
                                     bool join) const {
  int result = 0;
  if (IsV4(group)) {
    ip_mreqn request{};
    request.imr_multiaddr = V4Of(group);
    if (!IsZero(at) && IsV4(at)) request.imr_address = V4Of(at);
    result = setsockopt(socket, IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &request,
                        sizeof(request));
  } else {
    ipv6_mreq request{};
    request.ipv6mr_multiaddr = V6Of(group);
    if (!IsZero(at)) request.ipv6mr_interface = InterfaceOf(at);
    result = setsockopt(socket, IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, &request,
                        sizeof(request));
  }
  if (result == 0) return absl::OkStatus();
  const std::string what = join ? "join multicast group: " : "leave multicast group: ";
  if (errno == EADDRNOTAVAIL && !join) return absl::NotFoundError(what + "it is not joined");
  return absl::UnavailableError(absl::StrCat(
      what, std::strerror(errno),
      errno == ENODEV ? "; no interface has a route for groups: `ip route add 224.0.0.0/4 dev …`"
                      : ""));
}

absl::Status KernelDatagrams::Join(Socket socket, const Ip& group, const Ip& at) {
  return Member(socket, group, at, true);
}

absl::Status KernelDatagrams::Leave(Socket socket, const Ip& group, const Ip& at) {
  return Member(socket, group, at, false);
}

}  // namespace verbena::io
