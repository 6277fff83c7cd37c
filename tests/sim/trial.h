// SPDX-License-Identifier: Apache-2.0
// Scenarios in a process of their own, where a crash or a hang is a failure like any other; and
// which of its steps a failing one needs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace verbena::sim {

struct Report {
  bool failed = false;
  std::string text;
  uint64_t seed = 0;  // of the last scenario
  uint32_t at = 0;    // the step at which it failed
  uint64_t scenarios = 0;
  uint64_t requests = 0;
  double cpu_seconds = 0;
};

// Scenarios from `seed` on, until one fails or `seconds` are over.
Report RunMany(uint64_t seed, double seconds);
// One scenario, of these steps only.
Report RunOne(uint64_t seed, const std::vector<uint32_t>& keep);
// The same in this process, with the story of each step.
std::string Tell(uint64_t seed, const std::vector<uint32_t>& keep);

// A list as short as deleting makes it, of which `fails` is still true. `fails(steps)` is.
std::vector<uint32_t> Shrink(std::vector<uint32_t> steps,
                             const std::function<bool(const std::vector<uint32_t>&)>& fails);

}  // namespace verbena::sim
