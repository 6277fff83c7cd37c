// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/buffers.h"

#include <bit>
#include <new>

#include "examples/volume/go_on.h"

namespace verbena::volume {
namespace {

constexpr size_t kKept = 64;  // of each size, unused

}  // namespace

BlockMemory AllocateBlocks(uint64_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kBlock, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return BlockMemory(memory);
}

Buffers::Taking::Taking(Buffers& buffers, size_t bytes)
    : buffers_(buffers),
      size_class_(static_cast<size_t>(std::bit_width((bytes - 1) / kBlock))),
      bytes_(bytes) {
  const std::lock_guard guard(buffers.lock_);
  if (buffers.waiting_.empty()) memory_ = buffers.TakeLocked(size_class_);
}

// Null: there is too much in use.
BlockMemory Buffers::TakeLocked(size_t size_class) {
  if (BytesOf(size_class) > left_) return nullptr;
  left_ -= BytesOf(size_class);
  auto& free = free_[size_class];
  if (free.empty()) return AllocateBlocks(BytesOf(size_class));
  BlockMemory memory = std::move(free.back());
  free.pop_back();
  return memory;
}

// False: it has its memory after all.
bool Buffers::Wait(Taking& taking) {
  const std::lock_guard guard(lock_);
  if (waiting_.empty()) taking.memory_ = TakeLocked(taking.size_class_);
  if (taking.memory_ != nullptr) return false;
  waiting_.push_back(&taking);
  return true;
}

void Buffers::GiveBack(BlockMemory memory, size_t size_class) {
  std::vector<Taking*> next;
  {
    const std::lock_guard guard(lock_);
    left_ += BytesOf(size_class);
    auto& free = free_[size_class];
    if (free.size() < kKept) free.push_back(std::move(memory));
    while (!waiting_.empty()) {
      Taking& first = *waiting_.front();
      first.memory_ = TakeLocked(first.size_class_);
      if (first.memory_ == nullptr) break;
      waiting_.pop_front();
      next.push_back(&first);
    }
  }
  for (Taking* waiter : next) GoOn(waiter->suspension_);
}

}  // namespace verbena::volume
