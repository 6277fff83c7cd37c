// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"

namespace verbena::tool {

Progress::Progress(bool asked)
    : terminal_(isatty(STDERR_FILENO) == 1),
      shows_(asked || terminal_),
      next_(Clock::now() + std::chrono::seconds(2)) {}

Progress::~Progress() { Wipe(); }

void Progress::Start(absl::string_view what) {
  what_ = std::string(what);
  Wipe();
}

void Progress::Update(double share) {
  if (!shows_) return;
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(terminal_ ? 500 : 2000);
  absl::FPrintF(stderr, "%s%s: %d %%%s", terminal_ ? "\r\033[K" : "", what_,
                static_cast<int>(100 * std::clamp(share, 0.0, 1.0)), terminal_ ? "" : "\n");
  fflush(stderr);
  wet_ = terminal_;
}

void Progress::Wipe() {
  if (wet_) fputs("\r\033[K", stderr);
  wet_ = false;
}

}  // namespace verbena::tool
