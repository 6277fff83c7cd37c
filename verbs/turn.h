// SPDX-License-Identifier: Apache-2.0
// Threads that post to one queue of an iWARP device take turns, as they do in the driver: requests
// go to the device in the order of their places in the ledger, and a change of state finds none
// half posted. A turn is a call of the driver, which does not block, and nobody asks the kernel for
// more in it. lock, try_lock and unlock are named for std::lock_guard.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace verbena::verbs {

class Turn {
 public:
  // One bit, set and asked for by one instruction.
  bool try_lock() { return (taken_.fetch_or(1, std::memory_order_acquire) & 1) == 0; }
  void lock() {
    if (!try_lock()) [[unlikely]]
      Await();
  }
  void unlock() { taken_.store(0, std::memory_order_release); }

 private:
  // Whoever has it may have been stopped.
  [[gnu::noinline]] void Await() {
    constexpr int kSpins = 100;
    for (int i = 0; taken_.load(std::memory_order_relaxed) != 0 || !try_lock(); ++i) {
      if (i >= kSpins) sched_yield();
    }
  }

  std::atomic<uint32_t> taken_{0};
};

}  // namespace verbena::verbs
