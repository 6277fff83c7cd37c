// SPDX-License-Identifier: Apache-2.0
//
// What stands before the payload of an unreliable datagram on UDP, and the 40 bytes that a receive
// has in front of it (docs/decisions/0022-datagrams.md). Whatever a stranger may have sent is given
// to DecodeDatagram.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "fallback/wire/bytes.h"

namespace verbena::wire {

inline constexpr uint32_t kDatagramMagic = 0x56625544;  // "VbUD"
inline constexpr uint8_t kDatagramVersion = 1;
inline constexpr size_t kMaxDatagramPayload = 4096;  // bytes, IBV_MTU_4096
inline constexpr uint32_t kQpNumberMask = 0xffffff;

inline constexpr uint8_t kDatagramImmediate = 1;
inline constexpr uint8_t kDatagramSolicited = 2;

struct DatagramHeader {
  Be32 magic = kDatagramMagic;
  Be32 version_and_source;  // 8 and 24 bits
  Be32 flags_and_destination;
  Be32 qkey;
  Be32 immediate;
};
static_assert(sizeof(DatagramHeader) == 20 && alignof(DatagramHeader) == 1);
static_assert(offsetof(DatagramHeader, version_and_source) == 4);
static_assert(offsetof(DatagramHeader, flags_and_destination) == 8);
static_assert(offsetof(DatagramHeader, qkey) == 12);
static_assert(offsetof(DatagramHeader, immediate) == 16);

struct Datagram {
  uint32_t source = 0;  // queue pair numbers of 24 bits
  uint32_t destination = 0;
  uint32_t qkey = 0;
  std::optional<uint32_t> immediate = {};
  bool solicited = false;
};

DatagramHeader EncodeDatagram(const Datagram& datagram);
// The header of a whole packet; its payload is the rest. Empty: too short or too long, another
// magic or version, unknown flags, an immediate that no flag announces.
std::optional<Datagram> DecodeDatagram(std::span<const std::byte> packet);

// What the network said of a packet.
struct PacketFacts {
  std::array<uint8_t, 16> source = {}, destination = {};  // IPv4: mapped (RFC 4291 2.5.5.2)
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 0;
  uint16_t size = 0;  // bytes behind the IP header's transport header
};

// As RoCE v2 has it (IBTA A17.4.5.2): an IPv6 header, or 20 zeros and an IPv4 header, whose
// checksum is right.
inline constexpr size_t kGrhSize = 40;
std::array<std::byte, kGrhSize> MakeGrh(const PacketFacts& packet);

}  // namespace verbena::wire
