// SPDX-License-Identifier: Apache-2.0
// Why RDMA was not used.
#pragma once

#include <cstdint>

namespace verbena::connect {

// The numbers are on the wire (docs/wire.md). If you add one: a name and a row there.
enum class Reason : uint8_t {
  kNone = 0,
  // The listener's.
  kOff = 1,
  kNoDevice = 2,
  kNoCommonLink = 3,
  kBusy = 4,
  kFailed = 5,
  kMalformed = 6,
  // The caller's, or of one end for itself.
  kUnreachable = 64,
  kRefused = 65,
  kNotUnderstood = 66,
  kNotAsked = 67,
};

// For counters: "no-device".
const char* ReasonName(Reason reason);

}  // namespace verbena::connect
