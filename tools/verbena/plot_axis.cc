// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/plot_axis.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace verbena::tool {
namespace {

std::string SizeLabel(int power) {
  if (power < 10) return absl::StrCat(1 << power, " B");
  return power < 20 ? absl::StrCat(1 << (power - 10), " KiB")
                    : absl::StrCat(1 << (power - 20), " MiB");
}

}  // namespace

PlotAxis PlotAxis::Sizes(double least, double most) {
  int first = static_cast<int>(std::floor(std::log2(least)));
  int last = static_cast<int>(std::ceil(std::log2(most)));
  if (first == last) {  // one size stands in the middle
    --first;
    ++last;
  }
  PlotAxis axis;
  axis.low_ = std::exp2(first);
  axis.high_ = std::exp2(last);
  const int step = last - first > 14 ? 4 : last - first > 7 ? 2 : 1;
  for (int power = first; power <= last; ++power) {
    const bool labelled = power >= 0 && power % step == 0;
    axis.ticks_.push_back({std::exp2(power), labelled ? SizeLabel(power) : ""});
  }
  return axis;
}

PlotAxis PlotAxis::Decimal(double least, double most) {
  // All 1s to 9s of the decades around; those between the ends become ticks.
  const int first = static_cast<int>(std::floor(std::log10(least)));
  const int last = static_cast<int>(std::ceil(std::log10(most)));
  PlotAxis axis;
  axis.low_ = std::pow(10, first);
  axis.high_ = 10 * std::pow(10, last);
  for (int decade = first; decade <= last; ++decade) {
    for (int digit : {1, 2, 5}) {
      const double value = digit * std::pow(10, decade);
      if (value <= least) axis.low_ = value;
      if (value >= most && value < axis.high_ && value > axis.low_) axis.high_ = value;
    }
  }
  const bool fine = std::log10(axis.high_ / axis.low_) < 2.5;  // room for labels at 2 and 5
  for (int decade = first; decade <= last; ++decade) {
    for (int digit = 1; digit <= 9; ++digit) {
      const double value = digit * std::pow(10, decade);
      if (value < axis.low_ * 0.999 || value > axis.high_ * 1.001) continue;
      const bool labelled = digit == 1 || (fine && (digit == 2 || digit == 5));
      axis.ticks_.push_back({value, labelled ? absl::StrCat(value) : ""});
    }
  }
  return axis;
}

double PlotAxis::Place(double value) const {
  return std::log(value / low_) / std::log(high_ / low_);
}

}  // namespace verbena::tool
