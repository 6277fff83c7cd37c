// SPDX-License-Identifier: Apache-2.0
// A logarithmic axis: from values to places, and which values get a tick and a label.
#pragma once

#include <string>
#include <vector>

namespace verbena::tool {

struct PlotTick {
  double value = 0;
  std::string label;  // empty: a line only
};

class PlotAxis {
 public:
  // Powers of two from one below `least` to one above `most`, if they are not such; labels in B,
  // KiB, MiB.
  static PlotAxis Sizes(double least, double most);
  // From a 1, 2 or 5 of the decimal system to another.
  static PlotAxis Decimal(double least, double most);

  double low() const { return low_; }
  double high() const { return high_; }
  // 0 at low(), 1 at high().
  double Place(double value) const;
  const std::vector<PlotTick>& ticks() const { return ticks_; }

 private:
  double low_ = 1;
  double high_ = 2;
  std::vector<PlotTick> ticks_;
};

}  // namespace verbena::tool
