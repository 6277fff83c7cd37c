// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/key_table.h"

namespace verbena::engine {

namespace {
constexpr size_t kInitialBuckets = 256;
constexpr Access kRemoteBits = Access::kRemoteRead | Access::kRemoteWrite | Access::kRemoteAtomic;
}  // namespace

const char* AccessFaultText(AccessFault fault) {
  switch (fault) {
    case AccessFault::kNone:
      return "no fault";
    case AccessFault::kKey:
      return "the key is not registered";
    case AccessFault::kDomain:
      return "the key belongs to another protection domain or queue pair";
    case AccessFault::kBounds:
      return "the access is out of the region's bounds";
    case AccessFault::kWrap:
      return "the address range wraps around";
    case AccessFault::kAccess:
      return "the region does not allow this kind of access";
  }
  return "unknown fault";
}

KeyTable::KeyTable() {
  all_.push_back(std::make_unique<Buckets>(kInitialBuckets));
  buckets_.store(all_.back().get());
}

void KeyTable::Add(Region* region) {
  {
    std::lock_guard lock(mutex_);
    if (count_ > all_.back()->mask) Grow();
  }
  while (!Insert(region)) region->key = NewKey();
}

bool KeyTable::Insert(Region* region) {
  std::lock_guard lock(mutex_);
  if (Walk(region->key) != nullptr) return false;
  moves_.fetch_add(1, std::memory_order_seq_cst);
  Buckets* b = buckets_.load(std::memory_order_relaxed);
  std::atomic<Region*>& head = b->heads[Hash(region->key) & b->mask];
  region->next.store(head.load(std::memory_order_relaxed), std::memory_order_relaxed);
  region->alive.store(true, std::memory_order_release);
  head.store(region, std::memory_order_release);
  ++count_;
  moves_.fetch_add(1, std::memory_order_seq_cst);
  return true;
}

void KeyTable::Kill(Region* region) {
  std::lock_guard lock(mutex_);
  if (!region->alive.load(std::memory_order_relaxed)) return;
  moves_.fetch_add(1, std::memory_order_seq_cst);
  region->alive.store(false, std::memory_order_seq_cst);
  Buckets* b = buckets_.load(std::memory_order_relaxed);
  std::atomic<Region*>* link = &b->heads[Hash(region->key) & b->mask];
  while (Region* r = link->load(std::memory_order_relaxed)) {
    if (r == region) {
      link->store(r->next.load(std::memory_order_relaxed), std::memory_order_release);
      break;
    }
    link = &r->next;
  }
  --count_;
  moves_.fetch_add(1, std::memory_order_seq_cst);
  version_.fetch_add(1, std::memory_order_seq_cst);
}

void KeyTable::Grow() {
  Buckets* old = all_.back().get();
  all_.push_back(std::make_unique<Buckets>((old->mask + 1) * 4));  // may throw: nothing moves yet
  Buckets* fresh = all_.back().get();
  moves_.fetch_add(1, std::memory_order_seq_cst);
  for (size_t i = 0; i <= old->mask; ++i) {
    Region* r = old->heads[i].load(std::memory_order_relaxed);
    while (r != nullptr) {
      Region* next = r->next.load(std::memory_order_relaxed);
      std::atomic<Region*>& head = fresh->heads[Hash(r->key) & fresh->mask];
      r->next.store(head.load(std::memory_order_relaxed), std::memory_order_release);
      head.store(r, std::memory_order_release);
      r = next;
    }
  }
  buckets_.store(fresh, std::memory_order_release);
  moves_.fetch_add(1, std::memory_order_seq_cst);
}

Region* KeyTable::Walk(uint32_t key) const {
  Buckets* b = buckets_.load(std::memory_order_acquire);
  Region* r = b->heads[Hash(key) & b->mask].load(std::memory_order_acquire);
  while (r != nullptr && r->key != key) r = r->next.load(std::memory_order_acquire);
  return r != nullptr && r->alive.load(std::memory_order_acquire) ? r : nullptr;
}

Region* KeyTable::Find(uint32_t key) const {
  for (;;) {
    // A link that changed under the walk may have led it past the key: look again.
    const uint64_t before = moves_.load(std::memory_order_acquire);
    Region* r = Walk(key);
    // Every load above was an acquire, so this one comes after them.
    if (before % 2 == 0 && moves_.load(std::memory_order_relaxed) == before) return r;
    CpuRelax();
  }
}

AccessFault KeyTable::JudgeWindow(const Region& w, const Reach& reach) {
  if (w.domain != reach.domain) return AccessFault::kDomain;
  if ((reach.needed & kRemoteBits) == Access::kLocalRead) return AccessFault::kKey;
  if (!w.type_1 && w.bound_qp != reach.queue_pair) return AccessFault::kDomain;
  const Region* parent = w.parent;
  if (parent == nullptr || !parent->alive.load(std::memory_order_acquire)) return AccessFault::kKey;
  return Judge(w, reach);
}

Translation KeyTable::Check(const Reach& reach) const {
  for (;;) {
    const uint64_t before = moves_.load(std::memory_order_acquire);
    Region* const r = Walk(reach.key);
    const AccessFault fault = r == nullptr ? AccessFault::kKey
                              : r->window  ? JudgeWindow(*r, reach)
                                           : Judge(*r, reach);
    std::byte* const host =
        fault == AccessFault::kNone ? r->host + (reach.address - r->first) : nullptr;
    // Every load above was an acquire, so this one comes after them.
    if (before % 2 == 0 && moves_.load(std::memory_order_relaxed) == before) {
      return {host, r, fault};
    }
    CpuRelax();
  }
}

Translation KeyTable::CheckAndRemember(Reach reach, Recent* recent) const {
  const uint64_t moves = moves_.load(std::memory_order_seq_cst);
  const Translation t = Check(reach);
  if (t.ok() && !t.region->window) *recent = {moves, t.region};
  return t;
}

void ReleaseWindow(KeyTable* keys, Region* window) {
  keys->Kill(window);
  Region* parent = window->parent;
  window->parent = nullptr;
  if (parent != nullptr) parent->windows.fetch_sub(1);
  window->bound.store(false);
}

}  // namespace verbena::engine
