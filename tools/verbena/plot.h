// SPDX-License-Identifier: Apache-2.0
// Measured runs as a picture: latency, bandwidth and message rate over the size, on log axes. SVG
// for screen and print; curves differ in colour and marker, so that grey paper tells them apart
// too.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/reports.pb.h"

namespace verbena::tool {

struct PlotRun {
  std::string name;  // for the legend; empty: what it measured says enough
  report::PerfReport report;
};

// A panel for each mode among the runs; a run without rows has no curve.
std::string Plot(const std::vector<PlotRun>& runs);

// Draws what `verbena perf --json` has printed into `files`. InvalidArgument names the file that is
// no such report, or has nothing to draw.
absl::Status PlotFiles(const std::vector<std::string>& files, const std::string& svg);

}  // namespace verbena::tool
