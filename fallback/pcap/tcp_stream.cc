// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/tcp_stream.h"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fallback/wire/bytes.h"

namespace verbena::pcap {
namespace {

using wire::AsBytes;
using wire::Be16;
using wire::Be32;
using wire::WireStruct;

constexpr uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10;
// What an IPv4 packet holds behind two headers. No FPDU of ours is larger, a foreign one may be.
constexpr size_t kMaxPayload = 65535 - 20 - 20;

struct Ipv4Header {
  uint8_t version_and_words = 0x45;
  uint8_t traffic_class = 0;
  Be16 length;
  Be16 identification;
  Be16 fragment = 0x4000;  // never fragmented
  uint8_t hops = 64;
  uint8_t protocol = IPPROTO_TCP;
  Be16 checksum;
  in_addr source = {}, destination = {};
};
static_assert(sizeof(Ipv4Header) == 20);

struct Ipv6Header {
  Be32 version = 0x60000000;
  Be16 length;
  uint8_t protocol = IPPROTO_TCP;
  uint8_t hops = 64;
  std::array<uint8_t, 16> source = {}, destination = {};
};
static_assert(WireStruct<Ipv6Header> && sizeof(Ipv6Header) == 40);

struct TcpHeader {
  Be16 source, destination;
  Be32 sequence, acknowledged;
  uint8_t words = 5 << 4;
  uint8_t flags = 0;
  Be16 window = 0xffff;
  Be16 checksum;
  Be16 urgent;
};
static_assert(WireStruct<TcpHeader> && sizeof(TcpHeader) == 20);

// A window of a gigabyte: nobody acknowledges here, and no reader shall think that it is full.
constexpr std::array<uint8_t, 4> kSynOptions = {1, 3, 3, 14};

// RFC 1071.
uint32_t Sum(std::span<const std::byte> bytes, uint32_t sum) {
  uint64_t wide = sum;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) wide += wire::Load<Be16>(&bytes[i]);
  if (bytes.size() % 2 != 0) wide += std::to_integer<uint32_t>(bytes.back()) << 8;
  while (wide >> 16 != 0) wide = (wide & 0xffff) + (wide >> 16);
  return static_cast<uint32_t>(wide);
}
uint16_t Checksum(uint32_t sum) { return static_cast<uint16_t>(~sum); }

const in_addr& V4(const io::Address& a) {
  return reinterpret_cast<const sockaddr_in*>(a.raw())->sin_addr;
}
const in6_addr& V6(const io::Address& a) {
  return reinterpret_cast<const sockaddr_in6*>(a.raw())->sin6_addr;
}

}  // namespace

TcpStream::~TcpStream() {
  if (other_ != nullptr) other_->other_ = nullptr;
}

void TcpStream::Begin(int64_t at, bool called, uint32_t first) {
  in_.next = out_.next = first;
  const Way there = called ? Way::kOut : Way::kIn;
  const Way back = called ? Way::kIn : Way::kOut;
  Segment(at, there, kSyn, {});
  Segment(at, back, kSyn | kAck, {});
  Segment(at, there, kAck, {});
}

void TcpStream::Join(TcpStream* other) {
  other_ = other;
  other->other_ = this;
  other_writes_ = other->other_writes_ = true;
  in_.next = other->out_.next;
  out_.next = other->in_.next;
}

void TcpStream::Moved(int64_t at, Way way, std::span<const iovec> pieces, size_t count) {
  if (way == Way::kIn && other_writes_) return;
  for (const iovec& piece : pieces) {
    const size_t part = std::min(piece.iov_len, count);
    half(way).frames.Feed({static_cast<const std::byte*>(piece.iov_base), part},
                          [&](std::span<const std::byte> frame) { Data(at, way, frame); });
    count -= part;
    if (count == 0) return;
  }
}

void TcpStream::Ended(int64_t at, Way way, bool reset) {
  if (way == Way::kIn && other_writes_) return;
  if (half(way).reset || (half(way).ended && !reset)) return;
  half(way).frames.Finish([&](std::span<const std::byte> rest) { Data(at, way, rest); });
  Segment(at, way, reset ? kRst | kAck : kFin | kAck, {});
  half(way).ended = true;
  half(way).reset = reset;
}

void TcpStream::Data(int64_t at, Way way, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t part = std::min(bytes.size(), kMaxPayload);
    Segment(at, way, kPsh | kAck, bytes.first(part));
    bytes = bytes.subspan(part);
  }
}

void TcpStream::Segment(int64_t at, Way way, uint8_t flags, std::span<const std::byte> payload) {
  const io::Address& from = way == Way::kOut ? local_ : peer_;
  const io::Address& to = way == Way::kOut ? peer_ : local_;
  Half& mine = half(way);

  std::array<std::byte, sizeof(Ipv6Header) + sizeof(TcpHeader) + sizeof(kSynOptions)> headers;
  const bool ipv6 = from.family() == AF_INET6;
  const size_t options = (flags & kSyn) != 0 ? sizeof(kSynOptions) : 0;
  const size_t ip_size = ipv6 ? sizeof(Ipv6Header) : sizeof(Ipv4Header);
  const size_t header_size = ip_size + sizeof(TcpHeader) + options;
  const size_t tcp_size = sizeof(TcpHeader) + options + payload.size();

  // The pseudo header: addresses, protocol, length (RFC 9293 3.1, RFC 8200 8.1).
  uint32_t sum = IPPROTO_TCP + static_cast<uint32_t>(tcp_size);
  if (ipv6) {
    Ipv6Header ip;
    ip.length = static_cast<uint16_t>(tcp_size);
    std::memcpy(ip.source.data(), &V6(from), sizeof(ip.source));
    std::memcpy(ip.destination.data(), &V6(to), sizeof(ip.destination));
    std::memcpy(headers.data(), &ip, sizeof(ip));
    sum = Sum(std::as_bytes(std::span(ip.destination)),
              Sum(std::as_bytes(std::span(ip.source)), sum));
  } else {
    Ipv4Header ip;
    ip.length = static_cast<uint16_t>(sizeof(ip) + tcp_size);
    ip.source = V4(from);
    ip.destination = V4(to);
    ip.checksum = Checksum(Sum(std::as_bytes(std::span(&ip, 1)), 0));
    std::memcpy(headers.data(), &ip, sizeof(ip));
    sum = Sum(std::as_bytes(std::span(&ip.source, 2)), sum);
  }

  TcpHeader tcp;
  tcp.source = from.port();
  tcp.destination = to.port();
  tcp.sequence = mine.next;
  tcp.acknowledged = (flags & kAck) != 0 ? half(way == Way::kOut ? Way::kIn : Way::kOut).next : 0;
  tcp.words = static_cast<uint8_t>((sizeof(tcp) + options) / 4 << 4);
  tcp.flags = flags;
  sum = Sum(AsBytes(tcp), sum);
  sum = Sum(std::as_bytes(std::span(kSynOptions)).first(options), sum);
  tcp.checksum = Checksum(Sum(payload, sum));
  std::memcpy(headers.data() + ip_size, &tcp, sizeof(tcp));
  std::memcpy(headers.data() + ip_size + sizeof(tcp), kSynOptions.data(), options);

  file_->Packet(at, way, std::span(headers).first(header_size), payload);
  mine.next += static_cast<uint32_t>(payload.size()) + ((flags & (kSyn | kFin)) != 0 ? 1 : 0);
  if (other_ != nullptr) other_->half(way == Way::kOut ? Way::kIn : Way::kOut).next = mine.next;
}

}  // namespace verbena::pcap
