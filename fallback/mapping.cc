// SPDX-License-Identifier: Apache-2.0
#include "fallback/mapping.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>

namespace verbena::fallback {

namespace {

// PROCMAP_QUERY of Linux 6.11 (include/uapi/linux/fs.h), which older headers do not have: one
// look-up by address instead of reading the whole list.
struct ProcmapQuery {
  uint64_t size, query_flags, query_addr;
  uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
  uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
  uint64_t vma_name_addr, build_id_addr;
};
static_assert(sizeof(ProcmapQuery) == 104);
constexpr unsigned long kProcmapQuery = _IOWR('f', 17, ProcmapQuery);
constexpr uint64_t kReadable = 1, kWritable = 2;
constexpr uint64_t kCoveringOrNext = 0x10;

bool Ask(int fd, uintptr_t begin, uintptr_t end, Mapping* out) {
  while (begin < end) {
    ProcmapQuery q{};
    q.size = sizeof(q);
    q.query_flags = kCoveringOrNext;
    q.query_addr = begin;
    if (ioctl(fd, kProcmapQuery, &q) != 0) return false;
    if (q.vma_start >= end) break;
    if ((q.vma_flags & (kReadable | kWritable)) == kReadable) out->read_only = true;
    if (q.inode != 0) out->file = true;
    begin = q.vma_end;
  }
  return true;
}

void Read(uintptr_t begin, uintptr_t end, Mapping* out) {
  const std::unique_ptr<FILE, int (*)(FILE*)> maps(std::fopen("/proc/self/maps", "re"),
                                                   &std::fclose);
  char line[512];
  while (maps != nullptr && std::fgets(line, sizeof(line), maps.get()) != nullptr) {
    uintptr_t from = 0, to = 0;
    char rights[5] = "";
    uint64_t inode = 0;
    if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %" SCNu64, &from, &to, rights,
                    &inode) != 4) {
      continue;  // the rest of an over-long line
    }
    if (from >= end) return;
    if (to <= begin) continue;
    if (rights[0] == 'r' && rights[1] != 'w') out->read_only = true;
    if (inode != 0) out->file = true;
  }
}

}  // namespace

Mapping QueryMapping(std::span<const std::byte> memory) {
  Mapping result;
  const auto begin = reinterpret_cast<uintptr_t>(memory.data());
  const uintptr_t end = begin + memory.size();
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return result;
  if (!Ask(fd, begin, end, &result)) {
    result = {};
    Read(begin, end, &result);
  }
  close(fd);
  return result;
}

}  // namespace verbena::fallback
