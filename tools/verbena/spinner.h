// SPDX-License-Identifier: Apache-2.0
// Polls a link without sleeping and counts what completes: for measuring. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tools/verbena/link.h"
#include "tools/verbena/stats.h"
#include "transport/work_completion.h"

namespace verbena::tool {

class Spinner {
 public:
  // Gives up after `patience` without a completion or a call of Progressed().
  Spinner(Link& link, Clock::duration patience)
      : link_(link), patience_(patience), progressed_(Clock::now()) {}

  // Polls once. False: see status(), and stop.
  bool Turn();
  void Progressed() { idle_turns_ = 0; }

  uint64_t sends() const { return sends_; }  // sends, writes and reads that completed
  uint64_t receives() const { return receives_; }
  // OK, or why the link failed, or DeadlineExceeded.
  const absl::Status& status() const { return status_; }

 private:
  bool CheckPatience();

  Link& link_;
  const Clock::duration patience_;
  Clock::time_point progressed_;
  uint32_t idle_turns_ = 0;              // since then
  std::array<WorkCompletion, 64> done_;  // a member: to make them anew costs more than a poll
  uint64_t sends_ = 0;
  uint64_t receives_ = 0;
  absl::Status status_;
};

// "\r 45 %" on stderr twice a second, for work that takes more than two seconds and only where
// somebody looks: stderr is a terminal.
class Progress {
 public:
  Progress(absl::string_view what, uint64_t total);
  ~Progress();  // wipes the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void Update(uint64_t done);  // reads the clock only every 1024th time

 private:
  void Show(uint64_t done);

  const std::string what_;
  const uint64_t total_;
  const bool terminal_;
  Clock::time_point next_;
  uint32_t updates_ = 0;
  bool shown_ = false;
};

}  // namespace verbena::tool
