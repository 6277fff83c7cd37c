// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/cpu_meter.h"

#include <linux/perf_event.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace verbena::tool {

CpuMeter::CpuMeter() {
  perf_event_attr wanted{};
  wanted.size = sizeof wanted;
  wanted.type = PERF_TYPE_HARDWARE;
  wanted.config = PERF_COUNT_HW_CPU_CYCLES;
  wanted.inherit = 1;
  // Without the kernel's share the figure would say little about TCP: then rather none. Virtual
  // machines often have no such counter, and perf_event_paranoid may forbid it.
  cycles_ =
      static_cast<int>(syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

CpuMeter::~CpuMeter() {
  if (cycles_ >= 0) close(cycles_);
}

CpuUsage CpuMeter::Read() const {
  CpuUsage usage;
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  usage.seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  uint64_t cycles = 0;
  if (cycles_ >= 0 && read(cycles_, &cycles, sizeof cycles) == sizeof cycles) usage.cycles = cycles;
  return usage;
}

}  // namespace verbena::tool
