// SPDX-License-Identifier: Apache-2.0
// Times of single operations, summed up.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "proto/reports.pb.h"

namespace verbena::tool {

using Clock = std::chrono::steady_clock;

// Nanoseconds each, saturating at 4.29 s: four bytes a sample, so that ten million fit.
class Samples {
 public:
  void Reserve(size_t count) { nanoseconds_.reserve(count); }
  void Add(Clock::duration time);
  size_t size() const { return nanoseconds_.size(); }

  // Nearest rank. Divides each by `divisor` first: 2 for half round trips. Sorts the samples.
  report::Latency Summarise(int divisor = 1);

 private:
  std::vector<uint32_t> nanoseconds_;
};

double Seconds(Clock::duration time);

// User and system time of this process so far, all threads.
double CpuSeconds();

}  // namespace verbena::tool
