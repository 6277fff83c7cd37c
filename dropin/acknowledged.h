// SPDX-License-Identifier: Apache-2.0
// Events of an object that a program took and has not acknowledged: who destroys the object waits
// for them (ibv_ack_async_event(3), ibv_ack_cq_events(3), rdma_ack_cm_event(3)).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace verbena::dropin {

class Acknowledged {
 public:
  void Taken() {
    std::lock_guard lock(mutex_);
    ++open_;
  }
  void Acknowledge(uint64_t count = 1) {
    std::lock_guard lock(mutex_);
    open_ -= static_cast<int64_t>(count);
    if (open_ <= 0) done_.notify_all();
  }
  void WaitForAll() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return open_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  int64_t open_ = 0;
};

}  // namespace verbena::dropin
