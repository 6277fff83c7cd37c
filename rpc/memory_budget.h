// SPDX-License-Identifier: Apache-2.0
// Bytes of long messages that all connections of a server may hold together. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace verbena::rpc {

class MemoryBudget {
 public:
  // Some of it, which is given back with this. The budget outlives it.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) budget_->used_.fetch_sub(bytes_);
    }
    explicit operator bool() const { return budget_ != nullptr; }

   private:
    friend class MemoryBudget;
    Share(MemoryBudget* budget, uint64_t bytes) : budget_(budget), bytes_(bytes) {}
    MemoryBudget* budget_ = nullptr;
    uint64_t bytes_ = 0;
  };

  explicit MemoryBudget(uint64_t limit) : limit_(limit) {}

  // False: there is not so much left.
  Share Take(uint64_t bytes) {
    if (used_.fetch_add(bytes) + bytes <= limit_) return {this, bytes};
    used_.fetch_sub(bytes);
    return {};
  }
  // Of what is there already.
  Share Count(uint64_t bytes) {
    used_.fetch_add(bytes);
    return {this, bytes};
  }
  uint64_t limit() const { return limit_; }
  uint64_t used() const { return used_.load(); }

 private:
  const uint64_t limit_;
  std::atomic<uint64_t> used_ = 0;
};

}  // namespace verbena::rpc
