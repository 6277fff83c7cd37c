// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/histogram.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace verbena::tool {
namespace {

double Middle(size_t index) {
  return (static_cast<double>(Histogram::Lowest(index)) +
          static_cast<double>(Histogram::Highest(index))) /
         2;
}

// The next percentile worth a line: five of them on each way half the rest of the distance to 100.
double AfterLevel(double level) {
  constexpr double kTicks = 5;
  const double halvings = std::floor(std::log2(100 / (100 - level))) + 1;
  return level + 100 / (kTicks * std::exp2(halvings));
}

}  // namespace

uint64_t Histogram::Lowest(size_t index) {
  if (index < 2 * kHalf) return index;
  const size_t bucket = index / kHalf - 1;
  return (index % kHalf + kHalf) << bucket;
}

uint64_t Histogram::Highest(size_t index) {
  const size_t bucket = index < 2 * kHalf ? 0 : index / kHalf - 1;
  return Lowest(index) + (uint64_t{1} << bucket) - 1;
}

double Histogram::Mean() const {
  if (count_ == 0) return 0;
  double sum = 0;
  for (size_t i = 0; i < counts_.size(); ++i) sum += static_cast<double>(counts_[i]) * Middle(i);
  return sum / static_cast<double>(count_);
}

double Histogram::StandardDeviation() const {
  if (count_ == 0) return 0;
  const double mean = Mean();
  double sum = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    sum += static_cast<double>(counts_[i]) * (Middle(i) - mean) * (Middle(i) - mean);
  }
  return std::sqrt(sum / static_cast<double>(count_));
}

uint64_t Histogram::AtPercentile(double percentile) const {
  // 99.9 % of 1000 is 999 and not the 999.0000000001 that binary fractions make of it.
  const double share = percentile / 100 * static_cast<double>(count_);
  const auto rank = static_cast<uint64_t>(std::max(1.0, std::ceil(share * (1 - 1e-12))));
  uint64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    if (below >= rank) return std::min(Highest(i), max_);
  }
  return max_;
}

std::string Histogram::Percentiles(double scale) const {
  std::string text = absl::StrFormat("%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
                                     "1/(1-Percentile)");
  double level = 0;
  uint64_t below = 0;
  for (size_t i = 0; i < counts_.size() && below < count_; ++i) {
    if (counts_[i] == 0) continue;
    below += counts_[i];
    const double value = static_cast<double>(std::min(Highest(i), max_)) * scale;
    const double reached = 100 * static_cast<double>(below) / static_cast<double>(count_);
    while (level <= reached && level < 100) {
      absl::StrAppendFormat(&text, "%12.3f %2.12f %10d %14.2f\n", value, level / 100, below,
                            100 / (100 - level));
      level = AfterLevel(level);
      if (below == count_) break;  // of the last bucket one line, then the end
    }
  }
  absl::StrAppendFormat(&text, "%12.3f %2.12f %10d\n", static_cast<double>(max_) * scale, 1.0,
                        count_);
  absl::StrAppendFormat(&text, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", Mean() * scale,
                        StandardDeviation() * scale);
  absl::StrAppendFormat(&text, "#[Max     = %12.3f, Total count    = %12d]\n",
                        static_cast<double>(max_) * scale, count_);
  absl::StrAppendFormat(&text, "#[Buckets = %12d, SubBuckets     = %12d]\n", kBuckets, 2 * kHalf);
  return text;
}

}  // namespace verbena::tool
