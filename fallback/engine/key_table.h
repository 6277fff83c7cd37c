// SPDX-License-Identifier: Apache-2.0
// Which memory a key names, and whether an access is allowed. Every byte that comes in or goes out
// passes Check first.
//
// Lookups take no lock: they happen only inside a drive (the time in which one thread owns a queue
// pair, see queue_pair.h). Whoever kills a key waits, through `Grace`, until every drive that was
// under way has ended; after that nothing can hold the region any more. A drive is a few
// non-blocking system calls, so this never waits for a peer
// (docs/decisions/0005-memory-under-traffic.md).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "fallback/engine/key_source.h"
#include "fallback/engine/spin_lock.h"
#include "transport/access.h"

namespace verbena::engine {

// A field that a rebind may change while a lookup reads it; the lookup notices and looks again.
template <typename T>
class Published {
 public:
  Published(T value = T{}) : value_(value) {}  // NOLINT: reads and writes like a T
  operator T() const { return value_.load(std::memory_order_acquire); }  // NOLINT
  T operator->() const { return *this; }
  void operator=(T value) { value_.store(value, std::memory_order_release); }

 private:
  std::atomic<T> value_;
};

// One registered region, or one memory window. Owned by whoever registered it; linked into the
// table while its key is alive. A window is filled anew, under a new key, by every bind.
struct Region {
  Published<uint32_t> key;
  uint32_t domain = 0;  // protection domain
  bool window = false;
  // Windows: of IBTA 10.6.7.2.1. Bound anew without having been freed, for the peers of all queue
  // pairs of the domain, and not theirs to invalidate.
  bool type_1 = false;
  Published<bool> guarded = false;  // may vanish under us (a mapped file): see guarded_copy.h
  Published<Access> access = Access::kLocalRead;
  Published<uint64_t> first;         // iova of the first byte
  Published<uint64_t> length;        // bytes
  Published<std::byte*> host;        // where `first` lives
  Published<uint32_t> bound_qp;      // windows: the only queue pair whose peer may use the key
  Published<Region*> parent;         // windows: the region lent
  std::atomic<uint32_t> windows{0};  // regions: windows bound to it
  std::atomic<bool> bound{false};    // windows: claimed by a bind, until it is released
  std::mutex binding;                // windows of type 1: several queue pairs may bind them
  std::atomic<uint32_t> pending{0};  // regions and windows: posted binds that did not run yet
  std::atomic<bool> alive{false};

  // Many queue pairs may serve one region at once.
  std::atomic<uint64_t> reads{0}, writes{0}, atomics{0};

  std::atomic<Region*> next{nullptr};  // chain of the table
};

enum class AccessFault : uint8_t { kNone, kKey, kDomain, kBounds, kWrap, kAccess };
const char* AccessFaultText(AccessFault fault);

// What somebody wants to touch, and on whose behalf.
struct Reach {
  uint32_t key = 0;
  uint32_t domain = 0;
  uint32_t queue_pair = 0;             // matters for windows
  Access needed = Access::kLocalRead;  // without a remote bit windows are refused
  uint64_t address = 0;
  uint64_t length = 0;
};

struct Translation {
  std::byte* host = nullptr;
  Region* region = nullptr;
  AccessFault fault = AccessFault::kNone;
  bool ok() const { return fault == AccessFault::kNone; }
};

// The region that Check found last: nothing about it changes before a key comes or goes. Windows
// are not remembered.
struct Recent {
  uint64_t moves = ~uint64_t{0};  // of the table then; not so many yet
  Region* region = nullptr;
};

class KeyTable {
 public:
  KeyTable();

  uint32_t NewKey() { return keys_.Next(); }

  // Makes `region` known under region->key (from NewKey). Add may grow the table, and draws another
  // key if a window has it, whose keys programs may choose. Insert never allocates, and answers
  // false if somebody has the key.
  void Add(Region* region);
  [[nodiscard]] bool Insert(Region* region);
  // From now on Check refuses the key. The region may still be in use until a grace period ends.
  void Kill(Region* region);

  // Changes whenever a key dies: a translation made under another version must be made again.
  uint64_t version() const { return version_.load(std::memory_order_seq_cst); }

  // Only inside a drive.
  Translation Check(const Reach& reach) const;
  // The same for one who asks again and again.
  Translation Check(Reach reach, Recent* recent) const;
  Region* Find(uint32_t key) const;

  SpinLock atomics;  // of Hardships::device_atomics

 private:
  struct Buckets {
    explicit Buckets(size_t n) : mask(n - 1), heads(new std::atomic<Region*>[n]()) {}
    size_t mask;
    std::unique_ptr<std::atomic<Region*>[]> heads;
  };
  Region* Walk(uint32_t key) const;
  static AccessFault Judge(const Region& r, const Reach& reach);
  static AccessFault JudgeWindow(const Region& w, const Reach& reach);
  Translation CheckAndRemember(Reach reach, Recent* recent) const;
  static size_t Hash(uint32_t key) { return (key * 0x9e3779b97f4a7c15ull) >> 32; }
  void Grow();

  KeySource keys_;
  std::mutex mutex_;  // changes
  std::atomic<Buckets*> buckets_;
  std::vector<std::unique_ptr<Buckets>> all_;  // outgrown ones stay: a drive may walk them
  size_t count_ = 0;
  std::atomic<uint64_t> moves_{0};  // odd while links change; a miss under change looks again
  std::atomic<uint64_t> version_{0};
};

// Of what is no window.
inline AccessFault KeyTable::Judge(const Region& r, const Reach& reach) {
  if (r.domain != reach.domain) return AccessFault::kDomain;
  const uint64_t first = r.first;
  const uint64_t size = r.length;
  const uint64_t address = reach.address, length = reach.length;
  if (address + length < address) return AccessFault::kWrap;
  if (address < first || length > size || address - first > size - length) {
    return AccessFault::kBounds;
  }
  return Allows(r.access, reach.needed) ? AccessFault::kNone : AccessFault::kAccess;
}

inline Translation KeyTable::Check(Reach reach, Recent* recent) const {
  Region* const r = recent->region;
  if (moves_.load(std::memory_order_seq_cst) != recent->moves || r->key != reach.key) [[unlikely]] {
    return CheckAndRemember(reach, recent);
  }
  const AccessFault fault = Judge(*r, reach);
  if (fault != AccessFault::kNone) [[unlikely]] {
    return {nullptr, r, fault};
  }
  return {r->host + (reach.address - r->first), r, AccessFault::kNone};
}

// Ends what a bind began: the key is dead, the region has one window less, the window is free.
void ReleaseWindow(KeyTable* keys, Region* window);

}  // namespace verbena::engine
