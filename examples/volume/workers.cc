// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/workers.h"

namespace verbena::volume {

Workers::Workers(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

Workers::~Workers() {
  {
    const std::lock_guard guard(lock_);
    stop_ = true;
    posted_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void Workers::Post(std::function<void()> work) {
  const std::lock_guard guard(lock_);
  work_.push_back(std::move(work));
  posted_.notify_one();
}

void Workers::Loop() {
  std::unique_lock lock(lock_);
  for (;;) {
    posted_.wait(lock, [this] { return stop_ || !work_.empty(); });
    if (work_.empty()) return;
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

}  // namespace verbena::volume
