// SPDX-License-Identifier: Apache-2.0
// Numbers of queue pairs: the port at which this process is called, and an index (decision 0021).
// From 0x80 on the index is of datagrams, whose port is one of UDP (decision 0022).
// Any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/status/statusor.h"

namespace verbena::dropin {

constexpr uint16_t PortOf(uint32_t number) { return static_cast<uint16_t>(number >> 8); }

class Numbers {
 public:
  static constexpr uint32_t kPerPort = 128;

  // `open`: another port at which the process can be called.
  explicit Numbers(std::function<absl::StatusOr<uint16_t>()> open) : open_(std::move(open)) {}

  // The one that was free for longest, of those there are.
  absl::StatusOr<uint32_t> Take();
  void Return(uint32_t number);

 private:
  std::function<absl::StatusOr<uint16_t>()> open_;
  std::mutex mutex_;
  std::deque<uint32_t> free_;  // oldest first
};

}  // namespace verbena::dropin
