// SPDX-License-Identifier: Apache-2.0
#include "dropin/sidr.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace verbena::dropin {
namespace {

constexpr uint32_t kMagic = 0x56625344;  // "VbSD"
constexpr uint8_t kVersion = 1;
constexpr size_t kHeader = 24;
constexpr fallback::Nanos kBetweenTries = 50'000'000;
constexpr int kRefusedTries = 10;  // a listener that is about to be there: half a second
constexpr int kTries = 100;        // five seconds in all
constexpr size_t kRemembered = 1024;

void Put(std::string* out, uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t Get(std::span<const std::byte> from, size_t at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i)
    value = value << 8 | std::to_integer<uint8_t>(from[at + static_cast<size_t>(i)]);
  return value;
}

int Open(const provider::Address& at, bool share) {
  const int fd = socket(at.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int on = 1;
  if (share && at.family() == AF_INET6) {
    const int off = 0;
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, at.is_any() ? &off : &on, sizeof(on));
  }
  (void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
  if (at.family() == AF_INET6) {
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
  }
  if (bind(fd, at.raw(), at.length) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// What became of requests: empty: not answered yet. And the socket to answer on. Of all listeners,
// since ids outlive theirs.
struct Known {
  int socket = -1;  // its own
  std::string answer;
};
using Key = std::pair<std::string, uint64_t>;
std::mutex known_mutex;

std::map<Key, Known>& AllKnown() {
  static auto* const all = new std::map<Key, Known>;
  return *all;
}

Key KeyOf(const SidrCaller& caller) { return {caller.from.ToString(), caller.id}; }

void SendTo(int socket, const provider::Address& to, const std::string& bytes) {
  (void)sendto(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL, to.raw(), to.length);
}

Ip DestinationOf(const msghdr& message) {
  Ip ip{};
  for (const cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(c))) {
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof(info));
      std::memcpy(ip.data(), &info.ipi6_addr, ip.size());
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof(info));
      std::copy(std::begin(kMapped), std::end(kMapped), ip.begin());
      std::memcpy(ip.data() + kMappedBytes, &info.ipi_addr, sizeof(info.ipi_addr));
    }
  }
  return ip;
}

}  // namespace

std::string EncodeSidr(const SidrMessage& m) {
  std::string out;
  Put(&out, kMagic, 4);
  Put(&out, kVersion, 1);
  Put(&out, static_cast<uint8_t>(m.kind), 1);
  Put(&out, m.private_data.size(), 2);
  Put(&out, m.id, 8);
  Put(&out, m.qp_number, 4);
  Put(&out, m.qkey, 4);
  return out + m.private_data;
}

std::optional<SidrMessage> DecodeSidr(std::span<const std::byte> packet) {
  if (packet.size() < kHeader || Get(packet, 0, 4) != kMagic || Get(packet, 4, 1) != kVersion) {
    return std::nullopt;
  }
  const uint64_t kind = Get(packet, 5, 1);
  const size_t length = Get(packet, 6, 2);
  if (kind < 1 || kind > 3 || length > kMaxSidrData || packet.size() != kHeader + length) {
    return std::nullopt;
  }
  SidrMessage m;
  m.kind = static_cast<SidrKind>(kind);
  m.id = Get(packet, 8, 8);
  m.qp_number = static_cast<uint32_t>(Get(packet, 16, 4));
  m.qkey = static_cast<uint32_t>(Get(packet, 20, 4));
  m.private_data.assign(reinterpret_cast<const char*>(packet.data()) + kHeader, length);
  return m;
}

// --- caller

std::unique_ptr<SidrCall> SidrCall::Start(fallback::Hub* hub, const provider::Address& from,
                                          const provider::Address& to, const SidrMessage& request,
                                          Done done) {
  provider::Address any = from;
  any.set_port(0);
  const int fd = Open(any, false);
  if (fd < 0) return nullptr;
  // Connected, it hears of nobody else, and that nobody listens there.
  if (connect(fd, to.raw(), to.length) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return nullptr;
  }
  return std::unique_ptr<SidrCall>(new SidrCall(hub, fd, request, std::move(done)));
}

SidrCall::SidrCall(fallback::Hub* hub, int socket, const SidrMessage& request, Done done)
    : hub_(hub),
      socket_(socket),
      id_(request.id),
      request_(EncodeSidr(request)),
      done_(std::move(done)) {
  hub_->Add(this);
  hub_->Watch(this, socket_, true, false);
  hub_->SetDeadline(this, hub_->Now());
}

SidrCall::~SidrCall() {
  hub_->poller().Unwatch(socket_);
  hub_->Remove(this);
  close(socket_);
}

void SidrCall::OnDeadline() {
  if (finished_) return;
  if (++tries_ > kTries) return Finish(nullptr, ETIMEDOUT);
  (void)send(socket_, request_.data(), request_.size(), MSG_NOSIGNAL);
  hub_->SetDeadline(this, hub_->Now() + kBetweenTries);
}

void SidrCall::OnReady(bool, bool) {
  std::array<std::byte, kMaxSidr> room;
  for (;;) {
    const ssize_t n = recv(socket_, room.data(), room.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && errno == ECONNREFUSED && tries_ >= kRefusedTries && !finished_) {
      return Finish(nullptr, ECONNREFUSED);
    }
    if (n < 0 && errno != ECONNREFUSED) return;
    if (n < 0 || finished_ || static_cast<size_t>(n) > room.size()) continue;
    const std::optional<SidrMessage> m = DecodeSidr(std::span(room).first(static_cast<size_t>(n)));
    if (!m || m->id != id_ || m->kind == SidrKind::kRequest) continue;
    return Finish(&*m, 0);
  }
}

void SidrCall::Finish(const SidrMessage* answer, int error) {
  finished_ = true;
  hub_->SetDeadline(this, io::kNever);
  done_(answer, error);
}

// --- listener

std::unique_ptr<SidrListener> SidrListener::Start(fallback::Hub* hub, const provider::Address& at,
                                                  Arrived arrived) {
  const int fd = Open(at, true);
  if (fd < 0) return nullptr;
  return std::unique_ptr<SidrListener>(new SidrListener(hub, fd, std::move(arrived)));
}

SidrListener::SidrListener(fallback::Hub* hub, int socket, Arrived arrived)
    : hub_(hub), socket_(socket), arrived_(std::move(arrived)) {
  hub_->Add(this);
  hub_->Watch(this, socket_, true, false);
}

SidrListener::~SidrListener() {
  hub_->poller().Unwatch(socket_);
  hub_->Remove(this);
  close(socket_);
}

uint16_t SidrListener::port() const {
  sockaddr_storage name{};
  socklen_t length = sizeof(name);
  auto* const raw = reinterpret_cast<sockaddr*>(&name);
  return getsockname(socket_, raw, &length) == 0 ? provider::Address::From(raw, length).port() : 0;
}

void SidrListener::OnReady(bool, bool) {
  std::array<std::byte, kMaxSidr> room;
  for (;;) {
    sockaddr_storage name{};
    alignas(cmsghdr) char control[128];
    iovec piece{room.data(), room.size()};
    msghdr message{};
    message.msg_name = &name;
    message.msg_namelen = sizeof(name);
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t n = recvmsg(socket_, &message, MSG_DONTWAIT);
    if (n < 0) return;
    const std::optional<SidrMessage> m = DecodeSidr(std::span(room).first(static_cast<size_t>(n)));
    if ((message.msg_flags & MSG_TRUNC) != 0 || !m || m->kind != SidrKind::kRequest) continue;
    SidrCaller caller;
    caller.from = provider::Address::From(reinterpret_cast<sockaddr*>(&name), message.msg_namelen);
    caller.to = DestinationOf(message);
    caller.id = m->id;
    {
      std::lock_guard lock(known_mutex);
      std::map<Key, Known>& all = AllKnown();
      const auto found = all.find(KeyOf(caller));
      if (found != all.end()) {
        if (!found->second.answer.empty()) {
          SendTo(found->second.socket, caller.from, found->second.answer);
        }
        continue;
      }
      if (all.size() >= kRemembered) {  // a flood: the rest asks again, and may be asked twice
        close(all.begin()->second.socket);
        all.erase(all.begin());
      }
      all[KeyOf(caller)].socket = fcntl(socket_, F_DUPFD_CLOEXEC, 0);
    }
    arrived_(caller, *m);
  }
}

void SidrListener::Answer(const SidrCaller& caller, const SidrMessage& answer) {
  std::lock_guard lock(known_mutex);
  const auto found = AllKnown().find(KeyOf(caller));
  if (found == AllKnown().end()) return;
  found->second.answer = EncodeSidr(answer);
  SendTo(found->second.socket, caller.from, found->second.answer);
}

}  // namespace verbena::dropin
