// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/spinner.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace verbena::tool {

bool Spinner::Turn() {
  const size_t count = link_.cq().Poll(done_);
  if (count == 0) {
    // The clock costs as much as a poll.
    return (++idle_turns_ & 0xFFF) != 0 || CheckPatience();
  }
  idle_turns_ = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!done_[i].ok()) {
      status_ = link_.Why(done_[i]);
      return false;
    }
    ++(done_[i].opcode == WcOpcode::kReceive ? receives_ : sends_);
  }
  return true;
}

bool Spinner::CheckPatience() {
  const Clock::time_point now = Clock::now();
  if (idle_turns_ == 0x1000) progressed_ = now;  // the first look since something happened
  if (now - progressed_ < patience_) return true;
  status_ = absl::DeadlineExceededError(
      absl::StrCat("nothing from the peer ", link_.qp().connection().peer, " for ",
                   absl::FormatDuration(absl::FromChrono(patience_)),
                   ". Is it stopped, or the network down? --timeout changes the bound."));
  return false;
}

Progress::Progress(absl::string_view what, uint64_t total)
    : what_(what),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      next_(Clock::now() + std::chrono::seconds(2)) {}

Progress::~Progress() {
  if (shown_) fputs("\r\033[K", stderr);
}

void Progress::Update(uint64_t done) {
  if (terminal_ && (++updates_ & 0x3FF) == 0) Show(done);
}

void Progress::Show(uint64_t done) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(500);
  shown_ = true;
  absl::FPrintF(stderr, "\r\033[K%s: %d of %d, %d %%", what_, done, total_, done * 100 / total_);
  fflush(stderr);
}

}  // namespace verbena::tool
