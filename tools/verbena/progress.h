// SPDX-License-Identifier: Apache-2.0
// "write bandwidth, 8 bytes: 45 %" on stderr, for work that takes more than two seconds.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "tools/verbena/stats.h"

namespace verbena::tool {

// Shows only where somebody looks, i.e. on a terminal, or asks for it; elsewhere than on a terminal
// each step is a line of its own.
class Progress {
 public:
  explicit Progress(bool asked);
  ~Progress();  // wipes the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Start(absl::string_view what);
  void Update(double share);  // 0 to 1; reads the clock

 private:
  void Wipe();

  const bool terminal_;
  const bool shows_;
  std::string what_;
  Clock::time_point next_;
  bool wet_ = false;  // the terminal's line has text of ours
};

}  // namespace verbena::tool
