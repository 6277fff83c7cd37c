// SPDX-License-Identifier: Apache-2.0
// The one-sided operations as values, for tables that run over all of them.
#pragma once

#include <string>

#include "tests/conformance/pair.h"

namespace verbena::conformance {

inline constexpr Opcode kOneSided[] = {Opcode::kWrite, Opcode::kRead, Opcode::kCompareSwap,
                                       Opcode::kFetchAdd};

inline std::string Name(Opcode opcode) {
  switch (opcode) {
    case Opcode::kSend:
      return "Send";
    case Opcode::kWrite:
      return "Write";
    case Opcode::kRead:
      return "Read";
    case Opcode::kCompareSwap:
      return "CompareSwap";
    case Opcode::kFetchAdd:
      return "FetchAdd";
    default:
      return "Other";
  }
}

inline bool IsAtomic(Opcode opcode) {
  return opcode == Opcode::kCompareSwap || opcode == Opcode::kFetchAdd;
}

// What a target must grant.
inline Access Needs(Opcode opcode) {
  return opcode == Opcode::kWrite  ? Access::kRemoteWrite
         : opcode == Opcode::kRead ? Access::kRemoteRead
                                   : Access::kRemoteAtomic;
}

// A request that changes 8 zero bytes at `remote` if it writes, from (or into) the first bytes of
// `end`, which are not zero.
inline SendWr OneSided(Opcode opcode, const End& end, RemoteAddress remote, uint64_t id,
                       uint32_t length = 8) {
  return {.opcode = opcode,
          .local = end.slice(0, length),
          .remote = remote,
          .id = id,
          .atomic = {.compare_add = opcode == Opcode::kFetchAdd ? 5u : 0u, .swap = 5}};
}

}  // namespace verbena::conformance
