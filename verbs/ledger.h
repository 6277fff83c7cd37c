// SPDX-License-Identifier: Apache-2.0
// What is posted to a queue and not complete: the place, identity and kind of every request.
//
// A device gives back 64 bits with a completion. They name ledger and position, which is never used
// twice; the ledger has the application's own id, and what a failed completion does not tell
// (ibv_poll_cq(3): then only wr_id, status, qp_num and vendor_err are valid). Places are free again
// when their completion was polled, on every device alike; some drivers free them earlier, some
// later.
//
// Any thread; no locks but for binds (Pin). Ledgers and their places are type-stable: their memory
// stays with the device, so a completion of a queue pair that is gone finds another name, never
// freed memory.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "transport/work_completion.h"
#include "transport/work_request.h"
#include "verbs/errors.h"

namespace verbena::verbs {

// Four bytes in the order of WorkCompletion's, which those of a request that goes well become.
struct Facts {
  WcStatus fails_as = WcStatus::kSuccess;  // kSuccess: as the device says
  WcOpcode completes = WcOpcode::kSend;    // as
  bool quiet = false;                      // completes only if it fails
  uint8_t state = 0;                       // kOdd, kFailed, kFinished
};

class Ledger {
 public:
  enum class Kind : uint8_t { kSend, kReceive, kShared };

  static constexpr uint8_t kOdd = 1;       // success says more than length and peer
  static constexpr uint8_t kFailed = 2;    // iWARP: the device says so
  static constexpr uint8_t kFinished = 4;  // iWARP: was delivered or is in a stash

  struct alignas(32) Place {
    // The latest request of this place that left its poster: its name, with kOther or kUnused for
    // the ledger if it is not for hot_path.cc. kShared: its only name.
    std::atomic<uint64_t> posted{~uint64_t{0}};
    uint32_t key_or_next = 0;  // the peer's, for the text of an error; kShared: the next free place
    uint32_t length = 0;       // iWARP: of a read
    uint64_t id = 0;
    std::atomic<uint32_t> facts{0};      // Facts
    std::atomic<uint32_t> delivered{0};  // the latest that was before an older one; its position

    void Begin(uint64_t application_id, const Facts& what) {
      id = application_id;
      Know(what);
    }
    void Know(const Facts& what) {
      facts.store(std::bit_cast<uint32_t>(what), std::memory_order_relaxed);
    }
    Facts known() const { return std::bit_cast<Facts>(facts.load(std::memory_order_relaxed)); }
    uint8_t Add(uint8_t state) {  // the former one
      const auto added = std::bit_cast<uint32_t>(Facts{.state = state});
      return std::bit_cast<Facts>(facts.fetch_or(added, std::memory_order_acq_rel)).state;
    }
    bool Finish() {  // false: somebody else has
      constexpr auto kMark = std::bit_cast<uint32_t>(Facts{.state = kFinished});
      return (facts.fetch_or(kMark, std::memory_order_acq_rel) & kMark) == 0;
    }
    void FailAs(WcStatus status);
  };

  Kind kind() const { return kind_; }
  uint32_t limit() const { return limit_; }
  uint64_t posted() const {
    const uint64_t head = head_.load(std::memory_order_acquire);
    return kind_ == Kind::kShared ? head : PositionOf(head);
  }
  // Polled, or known to be complete and in a stash.
  uint64_t completed() const;
  uint64_t outstanding() const {
    const uint64_t done = completed();  // first: it never passes what is read after it
    return posted() - done;
  }

  // Whether fewer than `outstanding` are, by what is known without a look at each. `name`: next().
  bool HasRoomFor(int64_t room, uint64_t name) const {
    return static_cast<int64_t>(end_.load(std::memory_order_acquire) - name) > room;
  }
  int64_t RoomWith(uint32_t outstanding) const {
    return static_cast<int64_t>(reach_) - static_cast<int64_t>(outstanding * kStep);
  }

  // Positions count from 0. Up to `wanted` neighbouring places, of which the first is *first; fewer
  // if it is fuller.
  uint32_t Reserve(uint32_t wanted, uint64_t* first);
  // Reserve(1), by name. False: full, or another thread was faster; Reserve tells.
  bool ReserveOne(uint64_t* name) {
    *name = head_.load(std::memory_order_relaxed);
    return Before(*name, end_.load(std::memory_order_acquire)) &&
           head_.compare_exchange_strong(*name, *name + kStep, std::memory_order_acq_rel,
                                         std::memory_order_relaxed);
  }
  // The driver has these. Each place that was reserved is posted or given back.
  void Posted(uint64_t first, uint32_t count = 1) {
    for (uint64_t name = Name(first), end = Name(first + count); name != end; name += kStep) {
      Place& place = Of(name);
      if ((place.known().state & kOdd) != 0) [[unlikely]] {
        place.posted.store(Marked(name, kOther), std::memory_order_release);
      } else {
        place.posted.store(name, std::memory_order_release);
      }
    }
  }
  // The places [first + used, first + reserved) were not needed. False: others have posted behind
  // them, so they stay, as holes.
  bool GiveBack(uint64_t first, uint32_t used, uint32_t reserved) {
    return used == reserved || GiveBackSome(first, used, reserved);
  }
  bool IsHole(uint64_t position) const {
    const uint64_t name = Name(position);
    return Of(name).posted.load(std::memory_order_acquire) == Marked(name, kUnused);
  }
  // kShared: one place; null: none is free.
  Place* Take() {
    uint64_t top = top_.load(std::memory_order_acquire);
    for (;;) {
      const auto index = static_cast<uint32_t>(top);
      if (index == kNoPlace) return nullptr;
      Place* const place = &places_[index];
      // The tag in the upper half changes with every pop, so a stale `next` never gets in.
      const uint64_t next = ((top >> 32) + 1) << 32 | place->key_or_next;
      if (top_.compare_exchange_weak(top, next, std::memory_order_acq_rel)) {
        head_.fetch_add(1, std::memory_order_relaxed);
        return place;
      }
    }
  }

  uint64_t Name(uint64_t position) const { return (start_ + position) << kIndexBits | index_; }
  static uint64_t Next(uint64_t name) { return name + kStep; }
  uint64_t PositionOf(uint64_t name) const {
    return ((name >> kIndexBits) - start_) & ~uint64_t{0} >> kIndexBits;
  }
  Place& at(uint64_t position) const { return Of(Name(position)); }
  Place& Of(uint64_t name) const {
    static_assert(sizeof(Place) == 1u << kPlaceBits);
    return *reinterpret_cast<Place*>(reinterpret_cast<std::byte*>(places_.get()) +
                                     (name >> (kIndexBits - kPlaceBits) & offsets_));
  }
  // Of this ledger, and since it was cleared.
  bool Names(uint64_t name) const {
    return (name & kIndex) == index_ && !Before(name, floor_.load(std::memory_order_acquire));
  }
  // The device says that the request with this name is complete, and so are all before it.
  void Done(uint64_t name);
  // Its completion was delivered. The place is free, and so are those of quiet requests before it.
  void Retire(uint64_t name);
  // The same if it is the oldest, and its poster is through with it.
  bool RetireOldest(uint64_t name) {
    uint64_t end = name + reach_;
    return end_.compare_exchange_strong(end, end + kStep, std::memory_order_acq_rel,
                                        std::memory_order_relaxed);
  }
  // All are: RESET clears a queue without completions (IBTA 10.3.1.1). Names given so far are void.
  void Clear();

  // These objects stay open until the request at `position` is complete (or Unpin: it was not
  // taken).
  void Pin(uint64_t position, Children* a, Children* b);
  void Unpin(uint64_t position);

  // Set by the first failed completion, so that its cold path runs once.
  bool MarkFailed() { return !failed_.exchange(true, std::memory_order_relaxed); }
  void ForgetFailure() { failed_.store(false, std::memory_order_relaxed); }  // it goes on

  // iWARP, by whoever has the turn (turn.h): the next places that may be taken, as many as are
  // neighbours in memory, of which the first is *first; and how to take one of them.
  uint32_t Ahead(Place** first);
  uint64_t next() const { return head_.load(std::memory_order_relaxed); }
  void TakeNext(uint64_t name) { head_.store(name + kStep, std::memory_order_release); }
  // Requests from this position on were not given to the device.
  void KeepFrom(uint64_t position) { kept_from_.store(position, std::memory_order_release); }
  // The oldest request that may be outstanding: threads that post at once may be served in another
  // order than they took their places.
  uint64_t oldest() const {
    const uint64_t head = posted(), floor = PositionOf(floor_.load(std::memory_order_relaxed));
    return head - floor > uint64_t{2} * limit_ ? head - uint64_t{2} * limit_ : floor;
  }
  uint64_t kept_from() const { return kept_from_.load(std::memory_order_acquire); }
  // No request was refused by the peer, or the one that was is known.
  bool blameless() const { return blameless_.load(std::memory_order_relaxed); }
  void BlameNone() { blameless_.store(true, std::memory_order_relaxed); }

 private:
  friend class Ledgers;
  // A name: the ledger's index below, the position above. So it counts up by kStep, and no carry
  // ever comes to another ledger.
  static constexpr int kIndexBits = 20;
  static constexpr int kPlaceBits = 5;
  static constexpr uint64_t kStep = uint64_t{1} << kIndexBits;
  static constexpr uint64_t kIndex = kStep - 1;
  static constexpr uint64_t kOther = kIndex - 1;  // odd
  static constexpr uint64_t kUnused = kIndex;     // the driver refused it, or it was cleared

  static constexpr uint32_t kNoPlace = 0xffffffff;

  struct Pinned {
    uint64_t position;
    Children* a;
    Children* b;
  };

  static bool Before(uint64_t a, uint64_t b) { return static_cast<int64_t>(a - b) < 0; }
  static uint64_t Marked(uint64_t name, uint64_t mark) { return (name & ~kIndex) | mark; }
  static uint32_t Low(uint64_t name) { return static_cast<uint32_t>(name >> kIndexBits); }
  static void Raise(std::atomic<uint64_t>* to, uint64_t value);
  uint64_t size() const { return (offsets_ >> kPlaceBits) + 1; }
  // The first place from `tail` on that is not free again. A thread may stand between its place
  // and its post while others go round, and between a completion and its delivery: the queue waits
  // for both. So whatever is `limit_` places ahead was posted later, and the device, which works in
  // the order of posts, is done with a request when its place, of twice as many, comes again.
  uint64_t Free(uint64_t tail) const;
  bool RetireBehindQuiet(uint64_t name);
  bool GiveBackSome(uint64_t first, uint32_t used, uint32_t reserved);
  uint64_t FreePlaces();  // and they may be taken: the new end_
  void Return(uint64_t position);
  void ReleasePins(uint64_t end);

  // Names; kShared counts in head_ and done_ what was ever taken and returned. The next is first of
  // all, so that its address is the ledger's.
  alignas(64) std::atomic<uint64_t> head_{0};

  // For ever.
  alignas(64) uint64_t index_ = kUnused;
  uint64_t offsets_ = 0;  // of places in bytes, as a mask
  std::unique_ptr<Place[]> places_;

  Kind kind_ = Kind::kSend;
  uint32_t limit_ = 0;
  uint64_t reach_ = 0;  // limit_ as a distance of names
  uint64_t start_ = 0;  // position 0
  std::atomic<bool> failed_{false};
  std::atomic<bool> blameless_{false};
  std::atomic<bool> pinned_{false};
  std::atomic<uint64_t> kept_from_{~uint64_t{0}};
  std::atomic<uint64_t> floor_{0};  // name: all before it were cleared
  std::mutex pins_mutex_;
  std::vector<Pinned> pins_;
  alignas(64) std::atomic<uint64_t> end_{0};  // the first that may not be taken
  std::atomic<uint64_t> passed_{0};           // behind the newest that was delivered
  std::atomic<uint64_t> done_{0};             // behind the newest that the device is done with
  std::atomic<uint64_t> top_{0};              // kShared: tag and first free place
};

// All ledgers of a device.
class Ledgers {
 public:
  Ledgers();
  ~Ledgers();
  Ledgers(const Ledgers&) = delete;
  Ledgers& operator=(const Ledgers&) = delete;

  // Null: there are about 2^20 already.
  Ledger* Acquire(Ledger::Kind kind, uint32_t limit);
  void Release(Ledger* ledger);

  // The ledger of a name; null if it is of a queue that was closed or reset.
  Ledger* Find(uint64_t name) const {
    const uint64_t index = name & Ledger::kIndex;
    Ledger* chunk = chunks_[index / kChunk].load(std::memory_order_acquire);
    if (chunk == nullptr) return nullptr;
    Ledger* ledger = &chunk[index % kChunk];
    return ledger->Names(name) ? ledger : nullptr;
  }
  Ledger* nobody() { return &nobody_; }  // no name is its

 private:
  static constexpr uint64_t kChunk = 1024;

  void SetPlaces(Ledger* ledger, uint64_t size);

  Ledger nobody_;
  std::array<std::atomic<Ledger*>, 1024> chunks_{};
  std::mutex mutex_;
  uint64_t made_ = 0;
  std::array<std::vector<Ledger*>, 64> free_;  // by the binary logarithm of their size
};

// Whether `a` has to be delivered before `b`: both of one queue, `a` posted earlier.
bool PostedBefore(const Ledgers& ledgers, uint64_t a, uint64_t b);

}  // namespace verbena::verbs
