// SPDX-License-Identifier: Apache-2.0
//
// Golden bytes for tests: hex text with any spacing to bytes, and back without spaces.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace verbena::wire {

inline std::vector<std::byte> Hex(std::string_view text) {
  auto nibble = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string digits;
  for (const char c : text) {
    if (c != ' ' && c != '\n') digits.push_back(c);
  }
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(nibble(digits[i]) << 4 | nibble(digits[i + 1])));
  }
  return bytes;
}

inline std::string ToHex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes) {
    text.push_back("0123456789abcdef"[static_cast<int>(b) >> 4]);
    text.push_back("0123456789abcdef"[static_cast<int>(b) & 0xf]);
  }
  return text;
}

// Hex without its spaces, to compare with ToHex.
inline std::string Golden(std::string_view text) { return ToHex(Hex(text)); }

inline std::span<const std::byte> Chars(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace verbena::wire
