// SPDX-License-Identifier: Apache-2.0
// How much memory this process may pin: registering locks pages (setrlimit(2), RLIMIT_MEMLOCK).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace verbena::verbs {

// As the kernel counts them: whole pages, however little of them is registered
// (Linux drivers/infiniband/core/umem.c ib_umem_get; siw_verbs.c siw_reg_user_mr does the same).
uint64_t LockedPages(uint64_t address, uint64_t bytes, uint64_t page_bytes);
uint64_t LockedPages(const void* address, uint64_t bytes);  // of this machine's

// What the kernel compares.
struct LockedMemory {
  uint64_t page_bytes = 0;
  uint64_t pinned = 0;  // bytes, by this process
  uint64_t limit = 0;   // bytes; ~0: none
  bool exempt = false;  // CAP_IPC_LOCK: the kernel looks at no limit (capabilities(7))
};
LockedMemory ReadLockedMemory();

// OK if `pages` more may be pinned for `what` ("register 4096 bytes"), as far as can be known
// beforehand; else ResourceExhausted with the limit, what is pinned already, what is needed, and
// how to raise it.
absl::Status CheckPinnable(const std::string& what, uint64_t pages,
                           const LockedMemory& memory = ReadLockedMemory());

// The device has refused with this errno. The same text if the limit can be the reason, also for
// the exempt, whom siw does not know; OK: it cannot.
absl::Status PinRefused(const std::string& what, uint64_t pages, int error,
                        const LockedMemory& memory = ReadLockedMemory());

}  // namespace verbena::verbs
