// SPDX-License-Identifier: Apache-2.0
// The loops that are measured, and those that answer them. They answer false when an end failed:
// see its status().
#pragma once

#include <cstdint>
#include <limits>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tools/verbena/histogram.h"
#include "tools/verbena/perf_end.h"

namespace verbena::tool {

// What a client's loop notes.
struct PerfTally {
  Histogram rounds;  // PingPong: ticks of each round
  // Flood: ticks of an operation in the fastest slice. A slice is a 64th of the leg, and at least
  // twice what is outstanding.
  double fastest = std::numeric_limits<double>::infinity();
};

// Told now and then how many operations of the leg are done.
using PerfTick = absl::FunctionRef<void(uint64_t)>;

// One operation at a time, on each queue pair in turn; a write or send is answered with its like.
bool PingPong(PerfEnd& end, const PerfLeg& leg, PerfTally& tally, PerfTick tick);
// A window of operations outstanding on each queue pair, from the first post to the last
// completion, or credit.
bool Flood(PerfEnd& end, const PerfLeg& leg, PerfTally& tally, PerfTick tick);

// The server's part in a leg.
bool AnswerLeg(PerfEnd& end, const PerfLeg& leg);

}  // namespace verbena::tool
