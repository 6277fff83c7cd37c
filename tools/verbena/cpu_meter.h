// SPDX-License-Identifier: Apache-2.0
// What this process has used of the CPU, all threads.
#pragma once

#include <cstdint>

namespace verbena::tool {

struct CpuUsage {
  double seconds = 0;   // user and system
  uint64_t cycles = 0;  // of both; 0 where the processor's counters may not be read

  CpuUsage operator-(const CpuUsage& before) const {
    return {seconds - before.seconds, cycles - before.cycles};
  }
  CpuUsage& operator+=(const CpuUsage& more) {
    seconds += more.seconds;
    cycles += more.cycles;
    return *this;
  }
};

class CpuMeter {
 public:
  // Cycles are counted for this thread and those that it starts from now on, and theirs: make it
  // before there are others.
  CpuMeter();
  ~CpuMeter();
  CpuMeter(const CpuMeter&) = delete;
  CpuMeter& operator=(const CpuMeter&) = delete;

  CpuUsage Read() const;  // any thread

 private:
  int cycles_ = -1;
};

}  // namespace verbena::tool
