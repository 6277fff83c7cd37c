// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/stats.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstddef>

namespace verbena::tool {

void Samples::Add(Clock::duration time) {
  const int64_t count = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  nanoseconds_.push_back(static_cast<uint32_t>(std::clamp<int64_t>(count, 0, UINT32_MAX)));
}

report::Latency Samples::Summarise(int divisor) {
  report::Latency latency;
  if (nanoseconds_.empty()) return latency;
  std::sort(nanoseconds_.begin(), nanoseconds_.end());
  // The smallest sample that at least `percent` of them do not exceed.
  auto rank = [&](size_t percent) {
    const size_t index = (nanoseconds_.size() * percent + 99) / 100;
    return nanoseconds_[std::max<size_t>(index, 1) - 1] / 1e3 / divisor;
  };
  latency.set_min_us(rank(0));
  latency.set_median_us(rank(50));
  latency.set_p99_us(rank(99));
  latency.set_max_us(rank(100));
  return latency;
}

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace verbena::tool
