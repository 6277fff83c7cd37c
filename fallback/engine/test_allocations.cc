// SPDX-License-Identifier: Apache-2.0
// A file of its own: where the compiler sees both new and its callers, it takes free() for a
// mistake.
#include "fallback/engine/test_allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<uint64_t> allocations{0};
std::atomic<uint32_t> until_refusal{0};
std::atomic<bool> refuses_quietly{false};

void* Counted(size_t n) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(n == 0 ? 1 : n);
}
void* CountedOrThrow(size_t n) {
  if (until_refusal.load(std::memory_order_relaxed) > 0 && until_refusal.fetch_sub(1) == 1) {
    throw std::bad_alloc();
  }
  void* p = Counted(n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(size_t n) { return CountedOrThrow(n); }
void* operator new[](size_t n) { return CountedOrThrow(n); }
void* operator new(size_t n, const std::nothrow_t&) noexcept {
  return refuses_quietly ? nullptr : Counted(n);
}
void* operator new[](size_t n, const std::nothrow_t&) noexcept {
  return refuses_quietly ? nullptr : Counted(n);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }

void verbena::engine::RefuseAllocation(uint32_t nth) { until_refusal = nth; }
void verbena::engine::RefuseQuietly(bool on) { refuses_quietly = on; }
uint64_t verbena::engine::AllocationCount() { return allocations.load(std::memory_order_relaxed); }
