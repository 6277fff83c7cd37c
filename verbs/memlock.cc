// SPDX-License-Identifier: Apache-2.0
#include "verbs/memlock.h"

#include <linux/capability.h>
#include <sys/resource.h>

#include <cinttypes>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace verbena::verbs {
namespace {

struct Pinned {
  uint64_t bytes = 0;
  bool unlimited = false;  // CAP_IPC_LOCK: the kernel looks at no limit (capabilities(7))
};

Pinned ReadPinned() {
  Pinned out;
  std::FILE* file = std::fopen("/proc/self/status", "re");
  if (file == nullptr) return out;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    uint64_t value = 0;
    if (std::sscanf(line, "VmPin: %" SCNu64, &value) == 1) out.bytes = value * 1024;
    if (std::sscanf(line, "CapEff: %" SCNx64, &value) == 1) {
      out.unlimited = (value >> CAP_IPC_LOCK & 1) != 0;
    }
  }
  std::fclose(file);
  return out;
}

absl::Status Refusal(uint64_t bytes, uint64_t limit, uint64_t pinned) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "register ", bytes, " bytes: a device needs them locked in memory, ", pinned,
      " bytes are already, and the limit is ", limit,
      " (RLIMIT_MEMLOCK). Raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in systemd, "
      "`--ulimit memlock=-1` for a container, `* - memlock unlimited` in "
      "/etc/security/limits.conf."));
}

}  // namespace

absl::Status CheckPinnable(uint64_t bytes) {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return absl::OkStatus();
  }
  const Pinned pinned = ReadPinned();
  if (pinned.unlimited || bytes + pinned.bytes <= limit.rlim_cur) return absl::OkStatus();
  return Refusal(bytes, limit.rlim_cur, pinned.bytes);
}

absl::Status PinRefused(uint64_t bytes) {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const Pinned pinned = ReadPinned();
  if (limit.rlim_cur != RLIM_INFINITY && bytes + pinned.bytes > limit.rlim_cur) {
    return Refusal(bytes, limit.rlim_cur, pinned.bytes);
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("register ", bytes, " bytes: the kernel cannot lock so much memory (",
                   pinned.bytes, " bytes are locked already). Register less, or free memory."));
}

}  // namespace verbena::verbs
