// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/datagram.h"

#include <algorithm>

namespace verbena::wire {
namespace {

constexpr uint8_t kUdp = 17;
constexpr uint16_t kUdpHeader = 8;
constexpr uint16_t kV4Header = 20;

// RFC 791 3.1. Options are never there.
struct V4Header {
  uint8_t version_and_length = 0x45;
  uint8_t type_of_service = 0;
  Be16 total_length;
  Be16 identification;
  Be16 flags_and_offset;
  uint8_t time_to_live = 0;
  uint8_t protocol = kUdp;
  Be16 checksum;
  std::array<uint8_t, 4> source = {}, destination = {};
};
static_assert(sizeof(V4Header) == kV4Header && alignof(V4Header) == 1);

// RFC 8200 3.
struct V6Header {
  Be32 version_class_flow;
  Be16 payload_length;
  uint8_t next_header = kUdp;
  uint8_t hop_limit = 0;
  std::array<uint8_t, 16> source = {}, destination = {};
};
static_assert(sizeof(V6Header) == kGrhSize && alignof(V6Header) == 1);

// RFC 1071, of a header of whole words whose own checksum is zero.
uint16_t Checksum(const V4Header& header) {
  const std::span<const std::byte> bytes = AsBytes(header);
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) sum += Load<Be16>(&bytes[i]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

bool IsMapped(const std::array<uint8_t, 16>& ip) {
  return std::all_of(ip.begin(), ip.begin() + 10, [](uint8_t b) { return b == 0; }) &&
         ip[10] == 0xff && ip[11] == 0xff;
}

}  // namespace

DatagramHeader EncodeDatagram(const Datagram& d) {
  DatagramHeader h;
  h.version_and_source = uint32_t{kDatagramVersion} << 24 | (d.source & kQpNumberMask);
  const uint32_t flags =
      (d.immediate ? kDatagramImmediate : 0u) | (d.solicited ? kDatagramSolicited : 0u);
  h.flags_and_destination = flags << 24 | (d.destination & kQpNumberMask);
  h.qkey = d.qkey;
  h.immediate = d.immediate.value_or(0);
  return h;
}

std::optional<Datagram> DecodeDatagram(std::span<const std::byte> packet) {
  if (packet.size() < sizeof(DatagramHeader) ||
      packet.size() > sizeof(DatagramHeader) + kMaxDatagramPayload) {
    return std::nullopt;
  }
  const auto h = Load<DatagramHeader>(packet.data());
  const uint32_t flags = h.flags_and_destination >> 24;
  const bool immediate = (flags & kDatagramImmediate) != 0;
  if (h.magic != kDatagramMagic || h.version_and_source >> 24 != kDatagramVersion ||
      (flags & ~uint32_t{kDatagramImmediate | kDatagramSolicited}) != 0 ||
      (!immediate && h.immediate != 0)) {
    return std::nullopt;
  }
  Datagram d;
  d.source = h.version_and_source & kQpNumberMask;
  d.destination = h.flags_and_destination & kQpNumberMask;
  d.qkey = h.qkey;
  if (immediate) d.immediate = h.immediate;
  d.solicited = (flags & kDatagramSolicited) != 0;
  return d;
}

std::array<std::byte, kGrhSize> MakeGrh(const PacketFacts& packet) {
  std::array<std::byte, kGrhSize> out{};
  const auto length = static_cast<uint16_t>(kUdpHeader + packet.size);
  if (!IsMapped(packet.source)) {
    V6Header h;
    h.version_class_flow = 6u << 28 | uint32_t{packet.traffic_class} << 20;
    h.payload_length = length;
    h.hop_limit = packet.hop_limit;
    h.source = packet.source;
    h.destination = packet.destination;
    Store(out.data(), h);
    return out;
  }
  V4Header h;
  h.type_of_service = packet.traffic_class;
  h.total_length = static_cast<uint16_t>(kV4Header + length);
  h.time_to_live = packet.hop_limit;
  std::copy_n(packet.source.begin() + 12, 4, h.source.begin());
  std::copy_n(packet.destination.begin() + 12, 4, h.destination.begin());
  h.checksum = Checksum(h);
  Store(out.data() + kGrhSize - kV4Header, h);
  return out;
}

}  // namespace verbena::wire
