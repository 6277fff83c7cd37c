// SPDX-License-Identifier: Apache-2.0
// Posted send requests, oldest first. Posting threads add at the tail (one at a time, under
// `post_lock`), the owner of the queue pair walks and retires. Fixed size, no allocation.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>

#include "fallback/engine/limits.h"
#include "fallback/engine/spin_lock.h"
#include "transport/qp_state.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena::engine {

struct Region;

struct SendEntry {
  uint64_t id = 0;
  uint64_t remote_address = 0;  // binds: what peers call the first byte
  uint64_t compare_add = 0;     // binds: the address lent
  uint64_t swap = 0;            // binds: its length
  Region* window = nullptr;     // binds
  Region* region = nullptr;
  uint32_t remote_key = 0;
  uint32_t immediate_or_key = 0;  // immediate, key to invalidate, or a window's new key
  uint32_t length = 0;            // bytes of local data
  // Where the request stood in its sequences when it was first sent: a refused one goes back.
  uint32_t rsn = 0;
  uint32_t send_msn = 0;
  uint32_t read_msn = 0;
  uint64_t end = 0;  // bytes of the stream up to and with its last FPDU
  uint8_t sge_count = 0;
  Opcode opcode = Opcode::kSend;
  SendFlags flags = SendFlags::kNone;
  Access bind_access = Access::kLocalRead;
  bool signaled = false;
  bool is_inline = false;
  bool done = false;                      // local operations, reads and atomics: finished
  WcStatus failure = WcStatus::kSuccess;  // found before it was sent
};

constexpr bool IsRead(Opcode op) {  // answered by the peer, counted against ORD
  return op == Opcode::kRead || op == Opcode::kCompareSwap || op == Opcode::kFetchAdd;
}
constexpr bool IsLocal(Opcode op) {
  return op == Opcode::kLocalInvalidate || op == Opcode::kBindWindow;
}
constexpr bool IsSend(Opcode op) {
  return op == Opcode::kSend || op == Opcode::kSendWithImm || op == Opcode::kSendWithInvalidate;
}

// `Entry`: what is kept of a request besides its local entries and its inline data.
template <typename Entry>
class RequestQueue {
 public:
  RequestQueue(uint32_t max_wr, uint32_t max_sge, uint32_t max_inline);

  SpinLock post_lock;

  // Positions count up for ever; [head, tail) are the entries there.
  uint64_t head() const { return head_.load(std::memory_order_acquire); }
  uint64_t tail() const { return tail_.load(std::memory_order_acquire); }
  uint32_t max_wr() const { return max_wr_; }

  Entry& at(uint64_t position) { return entries_[position & mask_]; }
  const Entry& at(uint64_t position) const { return entries_[position & mask_]; }
  Sge* sges(uint64_t position) { return &sges_[(position & mask_) * max_sge_]; }
  std::byte* inline_data(uint64_t position) { return &inline_[(position & mask_) * max_inline_]; }

  void Publish(uint64_t tail) { tail_.store(tail, std::memory_order_release); }  // under post_lock
  void Retire(uint64_t head) { head_.store(head, std::memory_order_release); }   // the owner

 private:
  const uint32_t max_wr_;
  const uint64_t mask_;
  const uint32_t max_sge_;
  const uint32_t max_inline_;
  std::unique_ptr<Entry[]> entries_;
  std::unique_ptr<Sge[]> sges_;
  std::unique_ptr<std::byte[]> inline_;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
};

using SendQueue = RequestQueue<SendEntry>;

template <typename Entry>
RequestQueue<Entry>::RequestQueue(uint32_t max_wr, uint32_t max_sge, uint32_t max_inline)
    : max_wr_(max_wr),
      mask_(std::bit_ceil(max_wr) - 1),
      max_sge_(max_sge),
      max_inline_(max_inline),
      entries_(new Entry[mask_ + 1]),
      sges_(new Sge[(mask_ + 1) * max_sge]),
      inline_(new std::byte[(mask_ + 1) * max_inline]) {}

}  // namespace verbena::engine
