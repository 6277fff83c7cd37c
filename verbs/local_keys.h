// SPDX-License-Identifier: Apache-2.0
// The local keys of a protection domain on an iWARP device.
//
// A driver that meets a wrong one ends the connection at once, and with it the confirmations of
// requests that were good (IwarpSends). So a wrong one is found at the post.
//
// Add, Remove and SetSink take a lock. The others do not: what they read is never freed while the
// domain lives.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>

#include "transport/work_request.h"

namespace verbena::verbs {

class LocalKeys {
 public:
  // Of the memory of one key at a time; of none: without a byte.
  class Region {
   public:
    uint32_t key() const { return key_.load(std::memory_order_acquire); }
    uint64_t length() const { return length_.load(std::memory_order_relaxed); }
    uint32_t sink() const { return sink_.load(std::memory_order_acquire); }
    bool writable() const { return writable_.load(std::memory_order_relaxed); }
    // Whether `entry` has bytes, and all of them are here.
    bool Holds(const Sge& entry) const {
      const uint64_t left = end_.load(std::memory_order_relaxed) - entry.address;
      return uint64_t{entry.length} - 1 < left && left <= length();
    }

   private:
    friend class LocalKeys;
    std::atomic<uint64_t> end_{0}, length_{0};
    std::atomic<uint32_t> key_{0}, sink_{0};
    std::atomic<bool> writable_{false};
    Region* next_ = nullptr;  // never changes once it is linked
  };

  // `sink`: see below.
  void Add(uint32_t key, uint64_t first, uint64_t length, bool writable, uint32_t sink = 0);
  void Remove(uint32_t key);
  // The key under which the memory of `key` takes the answers of reads (IwarpDomain). 0: none yet.
  uint32_t Sink(uint32_t key) const;
  void SetSink(uint32_t key, uint32_t sink);
  // Whether every entry that takes bytes has one.
  bool HaveSinks(const SgeList& entries) const;
  // Whether every byte of `entries` is in a region of its key, and may be written if `written`.
  bool Covers(const SgeList& entries, bool written) const;
  // Null: no region has it. One that was found stays, and says by key() and Holds whether it
  // is of that key still.
  const Region* Find(uint32_t key) const;

 private:
  static constexpr uint32_t kBuckets = 1024;

  static uint32_t BucketOf(uint32_t key) { return (key * 0x9e3779b1u) >> 22; }

  std::array<std::atomic<Region*>, kBuckets> buckets_{};
  std::mutex mutex_;
  std::deque<Region> regions_;
};

}  // namespace verbena::verbs
