// SPDX-License-Identifier: Apache-2.0
// Times: taking them, and summing them up for a report.
#pragma once

#include <chrono>
#include <cstdint>

#include "proto/reports.pb.h"
#include "tools/verbena/histogram.h"

namespace verbena::tool {

using Clock = std::chrono::steady_clock;
double Seconds(Clock::duration time);

// A count that grows steadily, for differences within a loop: whoever wants seconds compares it
// with Clock at the loop's two ends. The processor's own, which takes 18 ns where Clock takes 31
// (on the virtual machine that this was written on), is worth having where a round trip takes 2 µs.
inline uint64_t Ticks() {
#ifdef __x86_64__
  return __builtin_ia32_rdtsc();
#else
  return static_cast<uint64_t>(Clock::now().time_since_epoch().count());
#endif
}

// `us` microseconds are one unit of `times`.
report::Latency ToReport(const Histogram& times, double us);

}  // namespace verbena::tool
