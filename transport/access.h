// SPDX-License-Identifier: Apache-2.0
// What a memory region or window allows, as in ibv_reg_mr(3). Values, any thread.
#pragma once

#include <cstdint>

namespace verbena {

// Reading locally is always allowed. kRemoteWrite and kRemoteAtomic need kLocalWrite too
// (ibv_reg_mr(3)); a registration that breaks this is refused.
enum class Access : uint8_t {
  kLocalRead = 0,
  kLocalWrite = 1,
  kRemoteWrite = 2,
  kRemoteRead = 4,
  kRemoteAtomic = 8,
  kWindowBind = 16,  // memory windows may be bound to this region
};

constexpr Access operator|(Access a, Access b) {
  return static_cast<Access>(static_cast<uint8_t>(a) | static_cast<uint8_t>(b));
}
constexpr Access operator&(Access a, Access b) {
  return static_cast<Access>(static_cast<uint8_t>(a) & static_cast<uint8_t>(b));
}
constexpr Access& operator|=(Access& a, Access b) { return a = a | b; }

// True if `granted` has every bit of `needed`.
constexpr bool Allows(Access granted, Access needed) { return (granted & needed) == needed; }

}  // namespace verbena
