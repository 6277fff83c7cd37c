// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/stats.h"

namespace verbena::tool {

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

report::Latency ToReport(const Histogram& times, double us) {
  report::Latency latency;
  auto at = [&](double percentile) { return static_cast<double>(times.AtPercentile(percentile)); };
  latency.set_min_us(static_cast<double>(times.min()) * us);
  latency.set_median_us(at(50) * us);
  latency.set_p90_us(at(90) * us);
  latency.set_p99_us(at(99) * us);
  latency.set_p999_us(at(99.9) * us);
  latency.set_max_us(static_cast<double>(times.max()) * us);
  latency.set_mean_us(times.Mean() * us);
  latency.set_stdev_us(times.StandardDeviation() * us);
  return latency;
}

}  // namespace verbena::tool
