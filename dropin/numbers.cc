// SPDX-License-Identifier: Apache-2.0
#include "dropin/numbers.h"

namespace verbena::dropin {

absl::StatusOr<uint32_t> Numbers::Take() {
  std::lock_guard lock(mutex_);
  // A few stay untouched, so that a number is not used again as soon as it is returned: a peer may
  // still call it.
  if (free_.size() < kPerPort / 2) {
    absl::StatusOr<uint16_t> port = open_();
    if (port.ok()) {
      for (uint32_t i = 0; i < kPerPort; ++i) free_.push_back(uint32_t{*port} << 8 | i);
    } else if (free_.empty()) {
      return port.status();
    }
  }
  const uint32_t number = free_.front();
  free_.pop_front();
  return number;
}

void Numbers::Return(uint32_t number) {
  std::lock_guard lock(mutex_);
  free_.push_back(number);
}

}  // namespace verbena::dropin
