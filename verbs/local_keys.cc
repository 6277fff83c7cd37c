// SPDX-License-Identifier: Apache-2.0
#include "verbs/local_keys.h"

namespace verbena::verbs {

void LocalKeys::Add(uint32_t key, uint64_t first, uint64_t length, bool writable, uint32_t sink) {
  const std::lock_guard lock(mutex_);
  std::atomic<Region*>& bucket = buckets_[BucketOf(key)];
  Region* region = bucket.load(std::memory_order_relaxed);
  while (region != nullptr && region->used.load(std::memory_order_relaxed)) region = region->next;
  const bool fresh = region == nullptr;
  if (fresh) region = &regions_.emplace_back();
  region->key.store(key, std::memory_order_relaxed);
  region->first.store(first, std::memory_order_relaxed);
  region->length.store(length, std::memory_order_relaxed);
  region->writable.store(writable, std::memory_order_relaxed);
  region->sink.store(sink, std::memory_order_relaxed);
  region->used.store(true, std::memory_order_release);
  if (!fresh) return;
  region->next = bucket.load(std::memory_order_relaxed);
  bucket.store(region, std::memory_order_release);
}

void LocalKeys::Remove(uint32_t key) {
  const std::lock_guard lock(mutex_);
  if (const Region* region = Find(key); region != nullptr) {
    const_cast<Region*>(region)->used.store(false, std::memory_order_release);
  }
}

uint32_t LocalKeys::Sink(uint32_t key) const {
  const Region* region = Find(key);
  return region != nullptr ? region->sink.load(std::memory_order_acquire) : 0;
}

bool LocalKeys::HaveSinks(const SgeList& entries) const {
  for (const Sge& entry : entries) {
    if (entry.length > 0 && Sink(entry.key) == 0) return false;
  }
  return true;
}

void LocalKeys::SetSink(uint32_t key, uint32_t sink) {
  const std::lock_guard lock(mutex_);
  if (const Region* region = Find(key); region != nullptr) {
    const_cast<Region*>(region)->sink.store(sink, std::memory_order_release);
  }
}

const LocalKeys::Region* LocalKeys::Find(uint32_t key) const {
  const Region* region = buckets_[BucketOf(key)].load(std::memory_order_acquire);
  while (region != nullptr && (!region->used.load(std::memory_order_acquire) ||
                               region->key.load(std::memory_order_relaxed) != key)) {
    region = region->next;
  }
  return region;
}

bool LocalKeys::Covers(const SgeList& entries, bool written) const {
  for (const Sge& entry : entries) {
    if (entry.length == 0) continue;
    const Region* region = Find(entry.key);
    if (region == nullptr) return false;
    if (written && !region->writable.load(std::memory_order_relaxed)) return false;
    const uint64_t length = region->length.load(std::memory_order_relaxed);
    const uint64_t offset = entry.address - region->first.load(std::memory_order_relaxed);
    if (offset > length || entry.length > length - offset) return false;
  }
  return true;
}

}  // namespace verbena::verbs
