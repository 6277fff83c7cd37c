// SPDX-License-Identifier: Apache-2.0
// ml::Group for Python: blocking calls that let other threads run, and futures of asyncio.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "examples/ml/group.h"
#include "examples/ml/python/view.h"

namespace ml::python {

class PyGroup;

// Registered memory of a Python object. Ends with close(), or with its group.
class Memory {
 public:
  // While an operation works on it. With the GIL, like all of it.
  class Use {
   public:
    Use() = default;
    explicit Use(const Memory& memory) : memory_(&memory) { ++memory.uses_; }
    Use(Use&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
    Use& operator=(Use&& other) noexcept {
      std::swap(memory_, other.memory_);
      return *this;
    }
    ~Use() {
      if (memory_ != nullptr) --memory_->uses_;
    }

   private:
    const Memory* memory_ = nullptr;
  };

  Memory(PyGroup& group, View view, verbena::MemoryRegion region, bool writable);
  ~Memory();

  const View& view() const { return view_; }
  const verbena::MemoryRegion& region() const { return region_; }
  bool writable() const { return writable_; }
  // FailedPrecondition: an operation is working on it.
  absl::Status Close();
  // The group ends: without it.
  void Abandon();

 private:
  PyGroup* group_;
  View view_;
  verbena::MemoryRegion region_;
  const bool writable_;
  mutable int uses_ = 0;
};

// Any thread; operations wait for one another. With the GIL, which they give up while they block.
class PyGroup {
 public:
  explicit PyGroup(std::unique_ptr<Group> group)
      : rank_(group->rank()),
        size_(group->size()),
        device_(group->device()),
        fd_(group->fd()),
        group_(std::move(group)) {}
  ~PyGroup() { Leave(); }

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& device() const { return device_; }
  int fd() const { return fd_; }
  GroupCounters Counters();
  void Leave();
  std::unique_ptr<Memory> Register(const pybind11::object& tensor, bool writable,
                                   const pybind11::object& dtype);
  void Forget(Memory& memory) { memories_.erase(&memory); }

  // What they return is `out`, or what stands for it.
  pybind11::object AllReduce(const pybind11::object& tensor, const pybind11::object& out,
                             const pybind11::object& dtype);
  pybind11::object AllGather(const pybind11::object& tensor, const pybind11::object& out,
                             const pybind11::object& dtype);
  void Barrier();

  // Futures of the running loop. `self` is the Python object of this.
  pybind11::object AllReduceAsync(const pybind11::object& self, const pybind11::object& tensor,
                                  const pybind11::object& out, const pybind11::object& dtype);
  pybind11::object AllGatherAsync(const pybind11::object& self, const pybind11::object& tensor,
                                  const pybind11::object& out, const pybind11::object& dtype);

 private:
  // What an operation works on, and what keeps it in place.
  struct Work {
    bool reduces = true;
    Dtype dtype = Dtype::kUint8;
    Source in;
    Target out;
    std::optional<View> in_view, out_view;
    pybind11::object in_object, out_object;
    Memory::Use in_use, out_use;  // let go of before those
    pybind11::object future;
  };
  std::unique_ptr<Work> Prepare(bool reduces, const pybind11::object& tensor,
                                const pybind11::object& out, const pybind11::object& dtype);
  pybind11::object Run(std::unique_ptr<Work> work);
  pybind11::object Start(const pybind11::object& self, std::unique_ptr<Work> work);
  void Pump(const pybind11::object& self);
  absl::StatusOr<bool> AdvanceFirst();
  void Settle(const absl::Status& status);
  void Watch(const pybind11::object& self);
  void Unwatch();

  // Runs `what` on the group, alone and without the GIL. FailedPrecondition after Leave().
  template <typename What>
  auto WithGroup(const What& what) -> decltype(what(std::declval<Group&>())) {
    pybind11::gil_scoped_release others;
    const std::lock_guard lock(lock_);
    if (group_ == nullptr) return Left();
    return what(*group_);
  }
  static absl::Status Left();

  const int rank_;
  const int size_;
  const std::string device_;
  const int fd_;
  std::mutex lock_;  // of group_'s calls; never waited for with the GIL
  std::unique_ptr<Group> group_;
  std::set<Memory*> memories_;
  std::deque<std::unique_ptr<Work>> waiting_;  // the first is running, if begun_
  bool begun_ = false;
  pybind11::object loop_;     // whose reader is added
  pybind11::object timeout_;  // of the running one
};

}  // namespace ml::python
