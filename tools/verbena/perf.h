// SPDX-License-Identifier: Apache-2.0
// `verbena perf`: its options, and what a client makes of them.
//
// At each end a PerfEnd has the queue pairs, one completion queue and the memory; perf_loops.h has
// the loops that run on it. A client measures sizes in turn, each in one or more legs (perf_wire.h
// has what is said between), and tells the server's share of CPU from the server's answers. Round
// trips go into a Histogram as ticks of the processor; what a tick is worth comes from the clock at
// the ends of the legs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/reports.pb.h"
#include "tools/verbena/cpu_meter.h"
#include "tools/verbena/perf_wire.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/side.h"

namespace verbena::tool {

struct PerfOptions : SideOptions {
  PerfOptions() : SideOptions(kPerfPort) {}

  std::string op = "write";
  std::string mode = "bw";
  std::string atomic = "fetch-add";
  std::string size;        // empty: 8 for lat, 64 KiB for bw, 64 for rate
  int64_t iterations = 0;  // 0: 10 000 for lat, about 1 GB for bw; a while for rate and sweeps
  int64_t seconds = 0;     // of each size; 0: by iterations
  int64_t window = 0;      // 0: 16 for bw, 512 for rate
  int64_t post_list = 0;   // 0: a quarter of the window, at most 32
  int64_t qps = 1;
  bool events = false;
  int64_t cpu = -1;
  bool json = false;
  bool progress = false;
  std::string hgrm;
  std::string plot;
  std::vector<std::string> files;  // reports to be plotted
};

// What a client is going to do.
struct PerfPlan {
  PerfOp op = PerfOp::kWrite;
  PerfMode mode = PerfMode::kBandwidth;
  bool swap = false;
  bool events = false;
  std::vector<uint32_t> sizes;
  uint32_t window = 1;
  uint32_t post_list = 1;
  uint32_t queue_pairs = 1;
  uint64_t iterations = 0;  // of each size; 0: as many as fit in `seconds`
  double seconds = 0;
};

// InvalidArgument: options that do not go together, or a size that is none.
absl::StatusOr<PerfPlan> MakePlan(const PerfOptions& options);
// "8", "64K", "1-4096", "all": the sizes that are measured, ascending; doubled from the first on,
// and the last.
absl::StatusOr<std::vector<uint32_t>> ParseSizes(const std::string& text);

// In preflight's connections: with one completion queue for all, each queue pair but the first adds
// its socket only.
inline int ConnectionsOf(uint32_t queue_pairs) {
  return static_cast<int>(1 + (queue_pairs + 2) / kConnectionDescriptors);
}

// Both return the exit status. `meter` is older than every other thread.
int RunPerfClient(const PerfOptions& options, const PerfPlan& plan, const CpuMeter& meter);
int RunPerfServer(const PerfOptions& options, const CpuMeter& meter);

// For people: perftest's columns. The heading when connected, then each row when it is measured.
void PrintPerfHeading(const report::PerfReport& report, const std::string& why);
void PrintPerfRow(const report::PerfReport& report, const report::PerfRow& row);
void PrintPerfClosing(const report::PerfReport& report);

}  // namespace verbena::tool
