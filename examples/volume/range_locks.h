// SPDX-License-Identifier: Apache-2.0
// Who may touch which blocks: readers share, a writer is alone. First come, first served. Any
// thread.
#pragma once

#include <coroutine>
#include <cstdint>
#include <list>
#include <mutex>
#include <utility>

#include "rpc/task.h"

namespace verbena::volume {

class RangeLocks {
  struct Range {
    uint64_t first, end;
    bool alone;
    bool held = false;
    rpc::Suspension* waits = nullptr;
  };
  using Place = std::list<Range>::iterator;

 public:
  // Lets go when it is destroyed; whoever waited goes on right there, or as soon as who was let go
  // on there before has come to a stop.
  class [[nodiscard]] Hold {
   public:
    Hold(Hold&& other) noexcept
        : locks_(std::exchange(other.locks_, nullptr)), place_(other.place_) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (locks_ != nullptr) locks_->Release(place_);
    }

   private:
    friend class RangeLocks;
    Hold(RangeLocks& locks, Place place) : locks_(&locks), place_(place) {}
    RangeLocks* locks_;
    Place place_;
  };

  class Taking {
   public:
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> caller) {
      // Not held, or not yet: `suspension_` is told.
      if (locks_.Held(place_, suspension_)) return false;
      return suspension_.Suspend(caller);
    }
    Hold await_resume() { return Hold(locks_, place_); }

   private:
    friend class RangeLocks;
    Taking(RangeLocks& locks, Place place) : locks_(locks), place_(place) {}
    RangeLocks& locks_;
    Place place_;
    rpc::Suspension suspension_;
  };

  // co_await it. [first, end).
  Taking Share(uint64_t first, uint64_t end) { return Take(first, end, false); }
  Taking HaveAlone(uint64_t first, uint64_t end) { return Take(first, end, true); }

 private:
  Taking Take(uint64_t first, uint64_t end, bool alone);
  bool Held(Place place, rpc::Suspension& suspension);
  void Release(Place place);
  bool FreeLocked(Place place) const;

  std::mutex lock_;
  std::list<Range> ranges_;  // held or waiting, in the order in which they came
};

}  // namespace verbena::volume
