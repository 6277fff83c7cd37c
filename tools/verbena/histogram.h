// SPDX-License-Identifier: Apache-2.0
// Counts of values in buckets whose width grows with the value: HdrHistogram's buckets for three
// significant figures, so that its tools read what WritePercentiles prints. Adding allocates
// nothing. One thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace verbena::tool {

class Histogram {
 public:
  // Values below 2048 have a bucket each; above, each doubling is cut in 1024, so that no value is
  // further than 1/1024 of itself from another one of its bucket.
  static constexpr int kHalfBits = 10;
  static constexpr uint64_t kHalf = uint64_t{1} << kHalfBits;
  static constexpr int kBuckets = 32;  // "buckets" in HdrHistogram's words: doublings
  static constexpr uint64_t kLargest = (2 * kHalf << (kBuckets - 1)) - 1;  // larger ones: as this

  Histogram() : counts_((kBuckets + 1) * kHalf) {}

  void Add(uint64_t value) {
    ++counts_[Index(std::min(value, kLargest))];
    ++count_;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
  }

  uint64_t count() const { return count_; }
  uint64_t min() const { return count_ == 0 ? 0 : min_; }  // exact, as max()
  uint64_t max() const { return max_; }
  // Of the middles of the buckets. 0 if nothing was added.
  double Mean() const;
  double StandardDeviation() const;

  // The largest value that shares a bucket with the smallest one that at least `percentile` % of
  // all do not exceed; never above max(). 0 if nothing was added.
  uint64_t AtPercentile(double percentile) const;

  // HdrHistogram's percentile format (.hgrm), each value times `scale`.
  std::string Percentiles(double scale) const;

  // Where a value is counted, and the smallest and largest value that are counted there.
  static size_t Index(uint64_t value) {
    const int bucket = std::bit_width(value | (2 * kHalf - 1)) - (kHalfBits + 1);
    return static_cast<size_t>((static_cast<uint64_t>(bucket) << kHalfBits) + (value >> bucket));
  }
  static uint64_t Lowest(size_t index);
  static uint64_t Highest(size_t index);

 private:
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
};

}  // namespace verbena::tool
