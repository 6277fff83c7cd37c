// SPDX-License-Identifier: Apache-2.0
// Memory for blocks on their way: aligned for O_DIRECT, used again and again, and bounded, so that
// callers wait when there are too many of them. Any thread.
#pragma once

#include <array>
#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "examples/volume/block.h"
#include "rpc/task.h"

namespace verbena::volume {

struct FreeMemory {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using BlockMemory = std::unique_ptr<std::byte[], FreeMemory>;
BlockMemory AllocateBlocks(uint64_t bytes);

class Buffers {
 public:
  class [[nodiscard]] Buffer {
   public:
    Buffer(Buffer&& other) noexcept = default;
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer() {
      if (memory_ != nullptr) buffers_->GiveBack(std::move(memory_), size_class_);
    }
    std::span<std::byte> bytes() const { return {memory_.get(), bytes_}; }

   private:
    friend class Buffers;
    Buffer(Buffers& buffers, BlockMemory memory, size_t size_class, size_t bytes)
        : buffers_(&buffers), memory_(std::move(memory)), size_class_(size_class), bytes_(bytes) {}
    Buffers* buffers_;
    BlockMemory memory_;
    size_t size_class_;
    size_t bytes_;
  };

  class Taking {
   public:
    bool await_ready() const noexcept { return memory_ != nullptr; }
    bool await_suspend(std::coroutine_handle<> caller) {
      if (buffers_.Wait(*this)) return suspension_.Suspend(caller);
      return false;
    }
    Buffer await_resume() { return {buffers_, std::move(memory_), size_class_, bytes_}; }

   private:
    friend class Buffers;
    Taking(Buffers& buffers, size_t bytes);
    Buffers& buffers_;
    size_t size_class_;
    size_t bytes_;
    BlockMemory memory_;
    rpc::Suspension suspension_;
  };

  explicit Buffers(size_t most) : left_(most) {}  // bytes, at least kMostBytes

  // co_await it. A whole number of blocks, at most kMostBytes. First come, first served.
  Taking Take(size_t bytes) { return {*this, bytes}; }

 private:
  static constexpr size_t kClasses = 11;  // 4 KiB, 8 KiB, … 4 MiB
  static size_t BytesOf(size_t size_class) { return kBlock << size_class; }

  BlockMemory TakeLocked(size_t size_class);
  bool Wait(Taking& taking);
  void GiveBack(BlockMemory memory, size_t size_class);

  std::mutex lock_;
  size_t left_;  // of what may be used
  std::array<std::vector<BlockMemory>, kClasses> free_;
  std::deque<Taking*> waiting_;
};

}  // namespace verbena::volume
