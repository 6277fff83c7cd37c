// SPDX-License-Identifier: Apache-2.0
// What is in the memory of a request: bytes that name it and their place in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace verbena::sim {

constexpr uint64_t PatternWord(uint64_t name, size_t word) {
  uint64_t z = name + word * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9ull;
  return z ^ (z >> 32);
}

inline std::byte PatternByte(uint64_t name, size_t at) {
  return static_cast<std::byte>(PatternWord(name, at / 8) >> (at % 8 * 8));
}

// Bytes [from, from + n) of the pattern.
inline void FillPattern(std::byte* to, uint64_t name, size_t from, size_t n) {
  size_t i = 0;
  for (; i < n && (from + i) % 8 != 0; ++i) to[i] = PatternByte(name, from + i);
  for (; i + 8 <= n; i += 8) {
    const uint64_t word = PatternWord(name, (from + i) / 8);
    std::memcpy(to + i, &word, 8);
  }
  for (; i < n; ++i) to[i] = PatternByte(name, from + i);
}

// The first byte that is not the pattern's; n: none.
inline size_t Differs(const std::byte* p, uint64_t name, size_t from, size_t n) {
  size_t i = 0;
  for (; i < n && (from + i) % 8 != 0; ++i) {
    if (p[i] != PatternByte(name, from + i)) return i;
  }
  for (; i + 8 <= n; i += 8) {
    const uint64_t word = PatternWord(name, (from + i) / 8);
    if (std::memcmp(p + i, &word, 8) != 0) break;
  }
  for (; i < n; ++i) {
    if (p[i] != PatternByte(name, from + i)) return i;
  }
  return n;
}

}  // namespace verbena::sim
