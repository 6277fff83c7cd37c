// SPDX-License-Identifier: Apache-2.0
// A lock for a few instructions: never held across a system call, a callback or an allocation.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace verbena::engine {

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class SpinLock {
 public:
  void lock() {
    if (held_.exchange(true, std::memory_order_acquire)) [[unlikely]] {
      Wait();
    }
  }
  bool try_lock() { return !held_.exchange(true, std::memory_order_acquire); }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  [[gnu::noinline]] void Wait() {
    int spins = 0;
    do {
      while (held_.load(std::memory_order_relaxed)) {
        // The holder may have been preempted: on few cores, spinning on would keep it so.
        if (++spins % 64 == 0) sched_yield();
        CpuRelax();
      }
    } while (held_.exchange(true, std::memory_order_acquire));
  }

  std::atomic<bool> held_{false};
};

// Counts events of one writer at a time; readers need no order.
class Counter {
 public:
  void Add(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  operator uint64_t() const {
    return value_.load(std::memory_order_relaxed);
  }  // NOLINT: reads like one

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace verbena::engine
