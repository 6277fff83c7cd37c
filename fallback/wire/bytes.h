// SPDX-License-Identifier: Apache-2.0
//
// Integers as they stand on the wire: alignment 1, fixed byte order, so that a header is a plain
// struct that can be laid over any byte of a receive buffer. Default is zero: a field that nobody
// sets goes out as zero, which is what the RFCs ask of reserved fields.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace verbena::wire {

namespace internal {
constexpr uint16_t Swap(uint16_t v) { return __builtin_bswap16(v); }
constexpr uint32_t Swap(uint32_t v) { return __builtin_bswap32(v); }
constexpr uint64_t Swap(uint64_t v) { return __builtin_bswap64(v); }
}  // namespace internal

template <typename T, std::endian kOrder>
class WireInt {
 public:
  constexpr WireInt() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): a field reads and writes like an integer.
  constexpr WireInt(T host) : bytes_(std::bit_cast<Bytes>(ToWire(host))) {}
  // NOLINTNEXTLINE(google-explicit-constructor)
  constexpr operator T() const { return ToWire(std::bit_cast<T>(bytes_)); }

 private:
  // bit_cast, not memcpy, because memcpy is not constexpr; both become one (swapping) load.
  using Bytes = std::array<unsigned char, sizeof(T)>;
  static constexpr T ToWire(T v) { return std::endian::native == kOrder ? v : internal::Swap(v); }
  Bytes bytes_{};
};

using Be16 = WireInt<uint16_t, std::endian::big>;
using Be32 = WireInt<uint32_t, std::endian::big>;
using Be64 = WireInt<uint64_t, std::endian::big>;
using Le32 = WireInt<uint32_t, std::endian::little>;  // only the CRC, see crc32c.h

static_assert(sizeof(Be16) == 2 && sizeof(Be32) == 4 && sizeof(Be64) == 8 && sizeof(Le32) == 4);
static_assert(alignof(Be16) == 1 && alignof(Be32) == 1 && alignof(Be64) == 1 && alignof(Le32) == 1);

template <typename T>
concept WireStruct = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> &&
                     alignof(T) == 1;

// The caller has checked that sizeof(T) bytes are there.
template <WireStruct T>
inline T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// Returns the byte after the last one written.
template <WireStruct T>
inline std::byte* Store(std::byte* to, const T& value) {
  std::memcpy(to, &value, sizeof(T));
  return to + sizeof(T);
}

template <WireStruct T>
inline std::span<const std::byte> AsBytes(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
}

}  // namespace verbena::wire
