// SPDX-License-Identifier: Apache-2.0
// Coroutines of C++20 over the callback core: Task is what a handler or a client's function
// returns, StartTask runs one from ordinary code, WaitFor blocks until it has its value.
#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace verbena::rpc {

// Where an awaiter waits for a callback that may run at once, or on another thread before the
// coroutine is suspended. If it ran at once the coroutine goes on without a nested call, or a loop
// over such awaits would use up the stack.
class Suspension {
 public:
  // What await_suspend returns, as its last act: false if Resume() was called before.
  bool Suspend(std::coroutine_handle<> caller) {
    caller_ = caller;
    return !other_is_there_.exchange(true);
  }
  void Resume() {
    if (other_is_there_.exchange(true)) caller_.resume();
  }

 private:
  std::coroutine_handle<> caller_;
  std::atomic<bool> other_is_there_ = false;
};

// Runs when it is awaited, once, on whatever thread that happens; what it awaits may move it to
// another. Move-only; the frame goes with the Task. An exception comes out of co_await.
template <typename T>
class [[nodiscard]] Task {
 public:
  struct promise_type {
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept { return Continue{}; }
    void unhandled_exception() { thrown = std::current_exception(); }
    template <typename Value>
    void return_value(Value&& result) {
      value.emplace(std::forward<Value>(result));
    }

    std::optional<T> value;
    std::exception_ptr thrown;
    std::coroutine_handle<> awaited_by;
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) noexcept {
    handle_.promise().awaited_by = caller;
    return handle_;
  }
  T await_resume() {
    if (handle_.promise().thrown) std::rethrow_exception(handle_.promise().thrown);
    return *std::move(handle_.promise().value);
  }

 private:
  struct Continue {
    bool await_ready() noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> done) noexcept {
      return done.promise().awaited_by;
    }
    void await_resume() noexcept {}
  };
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

// A coroutine that nobody awaits and that frees itself.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }  // `then` may not throw
  };
};

// `then(value)` or, if the task threw, `failed(exception)`.
template <typename T, typename Then, typename Failed>
Detached StartTask(Task<T> task, Then then, Failed failed) {
  std::exception_ptr thrown;
  std::optional<T> value;
  try {
    value.emplace(co_await task);
  } catch (...) {
    thrown = std::current_exception();
  }
  if (thrown) {
    failed(thrown);
  } else {
    then(*std::move(value));
  }
}

// Starts them all, and blocks until each has its value; never on a thread that has to move what
// they await. The first exception comes out when all have ended.
template <typename T>
std::vector<T> WaitForAll(std::vector<Task<T>> tasks) {
  std::mutex lock;
  std::condition_variable ended;
  std::vector<std::optional<T>> values(tasks.size());
  std::exception_ptr thrown;
  size_t left = tasks.size();
  for (size_t i = 0; i < values.size(); ++i) {
    StartTask(
        std::move(tasks[i]),
        [&, i](T value) {
          const std::lock_guard guard(lock);
          values[i].emplace(std::move(value));
          if (--left == 0) ended.notify_one();
        },
        [&](std::exception_ptr why) {
          const std::lock_guard guard(lock);
          if (!thrown) thrown = std::move(why);
          if (--left == 0) ended.notify_one();
        });
  }
  std::unique_lock waits(lock);
  ended.wait(waits, [&] { return left == 0; });
  if (thrown) std::rethrow_exception(thrown);
  std::vector<T> all;
  for (std::optional<T>& value : values) all.push_back(*std::move(value));
  return all;
}

template <typename T>
T WaitFor(Task<T> task) {
  std::vector<Task<T>> one;
  one.push_back(std::move(task));
  return std::move(WaitForAll(std::move(one)).front());
}

}  // namespace verbena::rpc
