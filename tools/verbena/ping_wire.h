// SPDX-License-Identifier: Apache-2.0
// What travels in ping's messages: rping's, so that a stock rping can be the other end.
//
// One round: the client SENDs an Advert of the memory that the data stands in; the server READs it
// and SENDs a go-ahead; the client SENDs an Advert of the memory that the data shall come back to;
// the server WRITEs it there and SENDs a second go-ahead. A go-ahead is a message of the same size
// whose content means nothing. The client leaves by disconnecting.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/memory.h"

namespace verbena::tool {

// Big-endian bytes {address 8, key 4, length 4}.
struct AdvertBytes {
  std::array<std::byte, 8> address;
  std::array<std::byte, 4> key;
  std::array<std::byte, 4> length;
};
static_assert(sizeof(AdvertBytes) == 16 && alignof(AdvertBytes) == 1);
static_assert(offsetof(AdvertBytes, key) == 8 && offsetof(AdvertBytes, length) == 12);

inline constexpr uint32_t kPingPort = 7174;
inline constexpr uint32_t kMinPing = 4;       // bytes
inline constexpr uint32_t kMaxPing = 65536;   // bytes; a server lends itself as much
inline constexpr uint32_t kDefaultPing = 64;  // bytes

// buffer.length must fit 32 bits.
AdvertBytes EncodeAdvert(const RemoteBuffer& buffer);
RemoteBuffer DecodeAdvert(const AdvertBytes& bytes);

// The data of round `round`: "rdma-ping-7: " and letters from 'A' on, one further each round, with
// a zero byte at the end. Fills all of `out`.
void FillPing(uint32_t round, std::span<std::byte> out);

}  // namespace verbena::tool
