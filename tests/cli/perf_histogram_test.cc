// SPDX-License-Identifier: Apache-2.0
// The histogram of `verbena perf`, against sorted values.
#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/verbena/histogram.h"
#include "tools/verbena/stats.h"

namespace verbena::tool {
namespace {

// Every bucket begins where the one before ends, and none is wider than 1/1024 of its values.
TEST(Histogram, BucketsCoverAndAreNarrow) {
  const size_t last = Histogram::Index(Histogram::kLargest);
  EXPECT_EQ(Histogram::Lowest(0), 0u);
  EXPECT_EQ(Histogram::Highest(last), Histogram::kLargest);
  for (size_t i = 0; i <= last; ++i) {
    const uint64_t low = Histogram::Lowest(i);
    const uint64_t high = Histogram::Highest(i);
    ASSERT_EQ(Histogram::Index(low), i);
    ASSERT_EQ(Histogram::Index(high), i);
    ASSERT_LE((high - low) * 1024, low) << i;
    if (i < last) {
      ASSERT_EQ(Histogram::Lowest(i + 1), high + 1);
    }
  }
}

TEST(Histogram, Empty) {
  const Histogram none;
  EXPECT_EQ(none.count(), 0u);
  EXPECT_EQ(none.min(), 0u);
  EXPECT_EQ(none.max(), 0u);
  EXPECT_EQ(none.AtPercentile(99), 0u);
  EXPECT_EQ(none.Mean(), 0);
  EXPECT_EQ(none.StandardDeviation(), 0);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram histogram;
  for (uint64_t value = 1000; value >= 1; --value) histogram.Add(value);
  EXPECT_EQ(histogram.AtPercentile(0), 1u);
  EXPECT_EQ(histogram.AtPercentile(50), 500u);
  EXPECT_EQ(histogram.AtPercentile(99), 990u);
  EXPECT_EQ(histogram.AtPercentile(99.9), 999u);
  EXPECT_EQ(histogram.AtPercentile(100), 1000u);
  EXPECT_DOUBLE_EQ(histogram.Mean(), 500.5);
  EXPECT_NEAR(histogram.StandardDeviation(), std::sqrt((1e6 - 1) / 12), 1e-9);
}

TEST(Histogram, HugeValuesAreCountedAsTheLargest) {
  Histogram histogram;
  histogram.Add(UINT64_MAX);
  EXPECT_EQ(histogram.count(), 1u);
  EXPECT_EQ(histogram.max(), UINT64_MAX);
  EXPECT_EQ(histogram.AtPercentile(50), Histogram::kLargest);
}

// Values over nine decades, as sorted truth has them, within a bucket.
TEST(Histogram, PercentilesAgainstSortedValues) {
  for (uint32_t seed : {1u, 2u, 3u}) {
    std::mt19937_64 random(seed);
    std::lognormal_distribution<double> draw(8 + seed, 2);
    std::vector<uint64_t> values(10'007 * seed);
    Histogram histogram;
    for (uint64_t& value : values) {
      value = static_cast<uint64_t>(draw(random));
      histogram.Add(value);
    }
    std::sort(values.begin(), values.end());
    EXPECT_EQ(histogram.min(), values.front());
    EXPECT_EQ(histogram.max(), values.back());
    for (double percentile : {0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
      const double rank = std::ceil(percentile / 100 * static_cast<double>(values.size()));
      const uint64_t truth = values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
      const uint64_t told = histogram.AtPercentile(percentile);
      EXPECT_GE(told, truth) << percentile;
      EXPECT_LE(static_cast<double>(told), static_cast<double>(truth) * (1 + 1.0 / 1024))
          << percentile;
    }
  }
}

TEST(Histogram, IntoAReport) {
  Histogram times;
  for (uint64_t us = 1; us <= 1000; ++us) times.Add(us * 1000);
  const report::Latency latency = ToReport(times, 1e-3 / 2);  // ns, half of each
  EXPECT_DOUBLE_EQ(latency.min_us(), 0.5);
  EXPECT_NEAR(latency.median_us(), 250, 250 / 1024.0);
  EXPECT_NEAR(latency.p90_us(), 450, 450 / 1024.0);
  EXPECT_NEAR(latency.p99_us(), 495, 495 / 1024.0);
  EXPECT_NEAR(latency.p999_us(), 499.5, 499.5 / 1024.0);
  EXPECT_DOUBLE_EQ(latency.max_us(), 500);
  EXPECT_NEAR(latency.mean_us(), 250.25, 0.25);
}

// The text that HdrHistogram's own writer makes of one value, and of eleven in two buckets.
TEST(Histogram, PercentileText) {
  Histogram one;
  one.Add(2000);
  EXPECT_EQ(one.Percentiles(1e-3),
            "       Value     Percentile TotalCount 1/(1-Percentile)\n\n"
            "       2.000 0.000000000000          1           1.00\n"
            "       2.000 1.000000000000          1\n"
            "#[Mean    =        2.000, StdDeviation   =        0.000]\n"
            "#[Max     =        2.000, Total count    =            1]\n"
            "#[Buckets =           32, SubBuckets     =         2048]\n");
  Histogram eleven;
  eleven.Add(2);
  for (int i = 0; i < 10; ++i) eleven.Add(4);
  EXPECT_THAT(eleven.Percentiles(1),
              ::testing::HasSubstr("\n\n"
                                   "       2.000 0.000000000000          1           1.00\n"
                                   "       4.000 0.100000000000         11           1.11\n"
                                   "       4.000 1.000000000000         11\n"
                                   "#[Mean    =        3.818, StdDeviation   =        0.575]\n"));
}

// Its lines as a plotter reads them: values and shares grow, five lines to each halving.
TEST(Histogram, PercentileTextOfMany) {
  Histogram histogram;
  for (uint64_t value = 1; value <= 1'000'000; ++value) histogram.Add(value);
  std::istringstream text(histogram.Percentiles(1));
  std::string line;
  std::getline(text, line);
  std::getline(text, line);
  double last_value = 0;
  double last_share = -1;
  int lines = 0;
  while (std::getline(text, line) && line[0] != '#') {
    double value = 0;
    double share = 0;
    uint64_t count = 0;
    ASSERT_TRUE(std::istringstream(line) >> value >> share >> count) << line;
    EXPECT_GE(value, last_value) << line;
    EXPECT_GT(share, last_share) << line;
    EXPECT_GE(static_cast<double>(count) / 1e6, share - 1e-9) << line;
    EXPECT_NEAR(value / 1e6, static_cast<double>(count) / 1e6, 1e-3) << line;
    last_value = value;
    last_share = share;
    ++lines;
  }
  EXPECT_EQ(last_share, 1);
  EXPECT_GE(lines, 50);
  EXPECT_LE(lines, 110);
}

}  // namespace
}  // namespace verbena::tool
