// SPDX-License-Identifier: Apache-2.0
// What is posted to a queue and not complete: the place, identity and kind of every request.
//
// A device gives back 64 bits with a completion. They name ledger, generation and position; the
// ledger has the application's own id, and what a failed completion does not tell (ibv_poll_cq(3):
// then only wr_id, status, qp_num and vendor_err are valid). Places are free again when their
// completion was polled, on every device alike; some drivers free them earlier, some later.
//
// Any thread; no locks but posting(), which is for iWARP. Ledgers and their places are
// type-stable: their memory stays with the device, so a completion of a queue pair that is gone
// finds another generation, never freed memory.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "transport/work_completion.h"
#include "transport/work_request.h"
#include "verbs/errors.h"

namespace verbena::verbs {

// Eight bytes, so that a post writes them as one.
struct Facts {
  Opcode opcode = Opcode::kSend;
  WcOpcode completes = WcOpcode::kSend;    // as
  WcStatus fails_as = WcStatus::kSuccess;  // kSuccess: as the device says
  bool plain = false;     // success says no more than length and peer: for hot_path.cc
  bool quiet = false;     // completes only if it fails
  bool unused = false;    // was reserved, but the driver refused the request
  bool failed = false;    // iWARP: the device says so; by std::atomic_ref
  bool finished = false;  // iWARP: was delivered or is in a stash; by std::atomic_ref
};

class Ledger {
 public:
  enum class Kind : uint8_t { kSend, kReceive, kShared };

  struct alignas(32) Place : Facts {
    uint64_t id = 0;
    uint32_t key = 0;                 // the peer's, for the text of an error
    uint32_t next = 0;                // kShared: the next free place
    uint32_t length = 0;              // iWARP: of a read
    std::atomic<uint32_t> posted{0};  // the latest request of this place that left its poster

    void Begin(uint64_t name, const Facts& facts) {
      static_cast<Facts&>(*this) = facts;
      id = name;
    }
  };

  Kind kind() const { return kind_; }
  uint32_t limit() const { return limit_; }
  uint64_t posted() const { return head_.load(std::memory_order_relaxed); }
  // Polled, or known to be complete and in a stash.
  uint64_t completed() const {
    const uint64_t tail = tail_.load(std::memory_order_acquire);
    const uint64_t done = done_.load(std::memory_order_acquire);
    return static_cast<int64_t>(done - tail) > 0 ? done : tail;
  }
  uint64_t outstanding() const {
    const uint64_t done = completed();  // first: it never passes what is read after it
    return head_.load(std::memory_order_acquire) - done;
  }

  // Up to `wanted` neighbouring places, of which the first is *first; fewer if it is fuller.
  uint32_t Reserve(uint32_t wanted, uint64_t* first);
  // Reserve(1).
  bool ReserveOne(uint64_t* position) {
    uint64_t head = head_.load(std::memory_order_relaxed);
    do {
      const uint64_t used = head - tail_.load(std::memory_order_acquire);
      if (static_cast<int64_t>(used) >= int64_t{limit_}) return false;  // below zero: see Reserve
      if (!MayFollow(head)) return false;
    } while (!head_.compare_exchange_weak(head, head + 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed));
    *position = head;
    return true;
  }
  // The driver has it, or refused it. Each place that was reserved is posted or given back.
  void Posted(uint64_t position) {
    at(position).posted.store(static_cast<uint32_t>(position), std::memory_order_release);
  }
  // The places [first + used, first + reserved) were not needed.
  void GiveBack(uint64_t first, uint32_t used, uint32_t reserved);
  // kShared: one place; false: none is free.
  bool Take(uint64_t* position);
  void Return(uint64_t position);

  Place& at(uint64_t position) {
    Places* places = places_.load(std::memory_order_acquire);
    return places->place[position & places->mask];
  }
  uint64_t Name(uint64_t position) const {
    return base_.load(std::memory_order_relaxed) | static_cast<uint32_t>(position);
  }
  bool Names(uint64_t name) const {
    return base_.load(std::memory_order_acquire) == (name & ~uint64_t{0xffffffff});
  }
  // The request with this name is complete, and so are all that were posted before it. Done: the
  // device says so. Retire: its completion was delivered, and the places are free.
  void Done(uint64_t name);
  void Retire(uint64_t name) {
    uint64_t tail = tail_.load(std::memory_order_relaxed);
    const uint64_t next = Widen(tail, static_cast<uint32_t>(name)) + 1;
    while (static_cast<int64_t>(next - tail) > 0 &&
           !tail_.compare_exchange_weak(tail, next, std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
    }
    if (odd_.load(std::memory_order_relaxed) != 0) [[unlikely]]
      RetireOdd(next);
  }
  // All are: RESET clears a queue without completions (IBTA 10.3.1.1). Names given so far are void.
  void Clear();

  // These objects stay open until the request at `position` is complete (or Unpin: it was not
  // taken).
  void Pin(uint64_t position, Children* a, Children* b);
  void Unpin(uint64_t position);

  // Set by the first failed completion, so that its cold path runs once.
  bool MarkFailed() { return !failed_.exchange(true, std::memory_order_relaxed); }

  // iWARP. Held from a request's place to its post, so that they go to the device in the order of
  // their places, and a change of state finds none half posted. Else a thread that is stopped in
  // between is overtaken by so many others that its place comes again.
  std::mutex& posting() { return posting_mutex_; }
  // Requests from this position on were not given to the device.
  void KeepFrom(uint64_t position) { kept_from_.store(position, std::memory_order_release); }
  // The oldest request that may be outstanding: threads that post at once may be served in another
  // order than they took their places.
  uint64_t oldest() const {
    const uint64_t head = posted(), floor = floor_.load(std::memory_order_relaxed);
    return head - floor > uint64_t{2} * limit_ ? head - uint64_t{2} * limit_ : floor;
  }
  uint64_t kept_from() const { return kept_from_.load(std::memory_order_acquire); }
  // No request was refused by the peer, or the one that was is known.
  bool blameless() const { return blameless_.load(std::memory_order_relaxed); }
  void BlameNone() { blameless_.store(true, std::memory_order_relaxed); }

 private:
  friend class Ledgers;
  struct Places {
    uint64_t mask;
    std::unique_ptr<Place[]> place;
  };
  struct Pinned {
    uint64_t position;
    Children* a;
    Children* b;
  };
  void NextGeneration();
  void SkipUnused();
  void ReleasePins(uint64_t end);
  void RetireOdd(uint64_t end);
  // A thread may stand between its place and its post while others go round. Who is `limit_` places
  // ahead waits for it: so whatever completes there was posted later, and the device, which works
  // in the order of posts, is done with the former request when its place comes again.
  bool MayFollow(uint64_t position) {
    const uint64_t former = position - limit_;
    return at(former).posted.load(std::memory_order_acquire) == static_cast<uint32_t>(former);
  }
  // The position whose low half is `low`, near `around`.
  static uint64_t Widen(uint64_t around, uint32_t low) {
    const auto apart = static_cast<int32_t>(low - static_cast<uint32_t>(around));
    return around + static_cast<uint64_t>(int64_t{apart});
  }

  Kind kind_ = Kind::kSend;
  uint32_t limit_ = 0;
  std::atomic<uint64_t> base_{0};  // index and generation, in place
  std::atomic<Places*> places_{nullptr};
  std::atomic<bool> failed_{false};
  std::atomic<bool> blameless_{false};
  static constexpr uint8_t kUnused = 1, kPinned = 2;
  std::atomic<uint8_t> odd_{0};  // which of these there are
  std::atomic<uint64_t> kept_from_{~uint64_t{0}};
  std::atomic<uint64_t> floor_{0};  // before it all was cleared
  std::mutex posting_mutex_;
  std::mutex pins_mutex_;
  std::vector<Pinned> pins_;
  alignas(64) std::atomic<uint64_t> head_{0};  // kShared: how many were ever taken
  alignas(64) std::atomic<uint64_t> tail_{0};
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> top_{0};  // kShared: tag and first free place
};

// All ledgers of a device.
class Ledgers {
 public:
  Ledgers() { nobody_.base_.store(1, std::memory_order_relaxed); }
  ~Ledgers();
  Ledgers(const Ledgers&) = delete;
  Ledgers& operator=(const Ledgers&) = delete;

  // Null: there are 2^20 already.
  Ledger* Acquire(Ledger::Kind kind, uint32_t limit);
  void Release(Ledger* ledger);

  // The ledger of a name; null if it is of a queue that was closed or reset.
  Ledger* Find(uint64_t name) const {
    const uint64_t index = name >> kIndexShift;
    Ledger* chunk = chunks_[index / kChunk].load(std::memory_order_acquire);
    if (chunk == nullptr) return nullptr;
    Ledger* ledger = &chunk[index % kChunk];
    return ledger->Names(name) ? ledger : nullptr;
  }
  Ledger* nobody() { return &nobody_; }  // no name is its

 private:
  friend class Ledger;
  static constexpr int kIndexShift = 44;
  static constexpr uint64_t kGeneration = uint64_t{1} << 32;
  static constexpr uint64_t kGenerations = uint64_t{0xfff} << 32;
  static constexpr uint64_t kChunk = 1024;

  Ledger nobody_;
  std::array<std::atomic<Ledger*>, 1024> chunks_{};
  std::mutex mutex_;
  uint64_t made_ = 0;
  std::vector<Ledger*> free_;
  std::vector<std::unique_ptr<Ledger::Places>> places_;  // all, also those that were outgrown
};

// Whether `a` has to be delivered before `b`: both of one queue, `a` posted earlier.
bool PostedBefore(const Ledgers& ledgers, uint64_t a, uint64_t b);

}  // namespace verbena::verbs
