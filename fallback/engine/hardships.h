// SPDX-License-Identifier: Apache-2.0
// Where InfiniBand leaves something open, a device may do what TCP never does by itself. These
// modes have TCP do it always, so that programs which rely on luck fail here and not on a device
// (docs/decisions/0018-simulator.md). Chosen with VERBENA_HARSH, "all" or names with commas.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace verbena::engine {

struct Hardships {
  // Reads are answered when nothing more has come, so what was posted behind one and is not fenced
  // is applied before it (IBTA 10.8.3.3).
  bool late_answers = false;
  // Memory to receive or to read into is overwritten when the first bytes come: what is in it until
  // the completion is nothing to rely on. Beyond the message, and where a read was refused, nobody
  // writes, and neither does this.
  bool poison = false;
  // Atomics are atomic against this device's others, not against the processor (IBTA 9.4.5).
  bool device_atomics = false;
};

inline constexpr unsigned char kPoison = 0xdb;

absl::StatusOr<Hardships> ParseHardships(absl::string_view text);

}  // namespace verbena::engine
