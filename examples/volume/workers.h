// SPDX-License-Identifier: Apache-2.0
// Threads for what blocks, so that the one that moves the connections does not. Any thread.
#pragma once

#include <condition_variable>
#include <coroutine>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "rpc/task.h"

namespace verbena::volume {

class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();  // runs what was posted
  void Post(std::function<void()> work);

  // co_await Run(work): what it returns. The coroutine goes on on a worker.
  template <typename Work>
  auto Run(Work work) {
    using Value = decltype(work());
    struct Awaiter {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> caller) {
        workers.Post([this, caller] {
          value.emplace(work());
          caller.resume();
        });
      }
      Value await_resume() { return *std::move(value); }
      Workers& workers;
      Work work;
      std::optional<Value> value = {};
    };
    return Awaiter{.workers = *this, .work = std::move(work)};
  }

 private:
  void Loop();

  std::mutex lock_;
  std::condition_variable posted_;
  std::deque<std::function<void()>> work_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace verbena::volume
