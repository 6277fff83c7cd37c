// SPDX-License-Identifier: Apache-2.0
#include "verbs/memlock.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace verbena::verbs {
namespace {

bool Fits(uint64_t pages, const LockedMemory& memory) {
  const uint64_t most = memory.limit / memory.page_bytes;
  const uint64_t pinned = memory.pinned / memory.page_bytes;
  return pinned <= most && pages <= most - pinned;
}

absl::Status Refusal(const std::string& what, uint64_t pages, const LockedMemory& memory) {
  return absl::ResourceExhaustedError(absl::StrCat(
      what, ": a device needs whole pages locked in memory, here ", pages * memory.page_bytes,
      " bytes; ", memory.pinned, " bytes are already, and the limit is ", memory.limit,
      " (RLIMIT_MEMLOCK). Raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in systemd, "
      "`--ulimit memlock=-1` for a container, `* - memlock unlimited` in "
      "/etc/security/limits.conf."));
}

}  // namespace

uint64_t LockedPages(uint64_t address, uint64_t bytes, uint64_t page_bytes) {
  if (bytes == 0) return 0;
  const uint64_t first = address / page_bytes, last = (address + (bytes - 1)) / page_bytes;
  return last - first + 1;
}

uint64_t LockedPages(const void* address, uint64_t bytes) {
  return LockedPages(reinterpret_cast<uint64_t>(address), bytes,
                     static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

LockedMemory ReadLockedMemory() {
  LockedMemory out;
  out.page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  rlimit limit{};
  const bool known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  out.limit = known ? limit.rlim_cur : ~uint64_t{0};
  std::FILE* file = known ? std::fopen("/proc/self/status", "re") : nullptr;
  if (file == nullptr) return out;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    uint64_t value = 0;
    if (std::sscanf(line, "VmPin: %" SCNu64, &value) == 1) out.pinned = value * 1024;
    if (std::sscanf(line, "CapEff: %" SCNx64, &value) == 1) {
      out.exempt = (value >> CAP_IPC_LOCK & 1) != 0;
    }
  }
  std::fclose(file);
  return out;
}

absl::Status CheckPinnable(const std::string& what, uint64_t pages, const LockedMemory& memory) {
  if (memory.exempt || Fits(pages, memory)) return absl::OkStatus();
  return Refusal(what, pages, memory);
}

absl::Status PinRefused(const std::string& what, uint64_t pages, int error,
                        const LockedMemory& memory) {
  // EPERM: a limit of 0 (Linux mm/mlock.c can_do_mlock).
  if ((error != ENOMEM && error != EPERM) || Fits(pages, memory)) return absl::OkStatus();
  return Refusal(what, pages, memory);
}

}  // namespace verbena::verbs
