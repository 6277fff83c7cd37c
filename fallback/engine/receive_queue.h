// SPDX-License-Identifier: Apache-2.0
// Posted receives, of one queue pair or shared by many. Any thread posts; the owner of a queue pair
// takes. Fixed size, no allocation after construction.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "fallback/engine/limits.h"
#include "fallback/engine/spin_lock.h"
#include "transport/counters.h"
#include "transport/options.h"
#include "transport/work_request.h"

namespace verbena::engine {

struct Receive {
  uint64_t id = 0;
  uint32_t sge_count = 0;
  uint64_t length = 0;  // bytes of all entries
  Sge sges[kMaxSge];
};

class ReceiveQueue {
 public:
  ReceiveQueue(uint32_t max_wr, uint32_t max_sge);

  // `wake`: a taker found the queue empty since the last post and wants to hear (see Take).
  PostResult Post(std::span<const ReceiveWr> requests, bool* wake);
  // False: empty; then the next Post says `wake`. `limit_reached`: the armed limit was crossed.
  bool Take(Receive* out, bool* limit_reached);
  // The next one, if it has room for `length` bytes; else it stays. Nobody waits for a post.
  enum class Taken : uint8_t { kYes, kEmpty, kTooSmall };
  Taken TakeFor(uint64_t length, Receive* out, bool* limit_reached);
  bool empty() const { return count_.load(std::memory_order_seq_cst) == 0; }

  // Shared queues. True: fewer than `limit` are left already, the event is due at once.
  bool SetLimit(uint32_t limit);
  SrqLimits limits() const;
  SrqCounters counters() const;
  uint64_t posted() const { return counters_.posted; }
  void Clear();

 private:
  void TakeFirst(Receive* out, bool* limit_reached);  // with lock_; there is one

  mutable SpinLock lock_;
  const uint32_t max_wr_;
  const uint32_t max_sge_;
  struct Slot {
    uint64_t id;
    uint64_t length;  // bytes of all entries
    uint32_t sge_count;
  };
  std::unique_ptr<Slot[]> slots_;
  std::unique_ptr<Sge[]> sges_;  // max_sge_ of each
  uint32_t head_ = 0;
  std::atomic<uint32_t> count_{0};
  uint32_t limit_ = 0;
  bool taker_waits_ = false;
  SrqCounters counters_;
};

}  // namespace verbena::engine
