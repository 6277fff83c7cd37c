// SPDX-License-Identifier: Apache-2.0
#include "verbs/local_keys.h"

namespace verbena::verbs {

void LocalKeys::Add(uint32_t key, uint64_t first, uint64_t length, bool writable, uint32_t sink) {
  const std::lock_guard lock(mutex_);
  std::atomic<Region*>& bucket = buckets_[BucketOf(key)];
  Region* region = bucket.load(std::memory_order_relaxed);
  while (region != nullptr && region->length() > 0) region = region->next_;
  const bool fresh = region == nullptr;
  if (fresh) region = &regions_.emplace_back();
  region->end_.store(first + length, std::memory_order_relaxed);
  region->length_.store(length, std::memory_order_relaxed);
  region->writable_.store(writable, std::memory_order_relaxed);
  region->sink_.store(sink, std::memory_order_relaxed);
  region->key_.store(key, std::memory_order_release);
  if (!fresh) return;
  region->next_ = bucket.load(std::memory_order_relaxed);
  bucket.store(region, std::memory_order_release);
}

void LocalKeys::Remove(uint32_t key) {
  const std::lock_guard lock(mutex_);
  if (const Region* region = Find(key); region != nullptr) {
    const_cast<Region*>(region)->length_.store(0, std::memory_order_relaxed);
    const_cast<Region*>(region)->key_.store(0, std::memory_order_release);
  }
}

uint32_t LocalKeys::Sink(uint32_t key) const {
  const Region* region = Find(key);
  return region != nullptr ? region->sink() : 0;
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
    const_cast<Region*>(region)->sink_.store(sink, std::memory_order_release);
  }
}

const LocalKeys::Region* LocalKeys::Find(uint32_t key) const {
  const Region* region = buckets_[BucketOf(key)].load(std::memory_order_acquire);
  while (region != nullptr && (region->key() != key || region->length() == 0)) {
    region = region->next_;
  }
  return region;
}

bool LocalKeys::Covers(const SgeList& entries, bool written) const {
  for (const Sge& entry : entries) {
    if (entry.length == 0) continue;
    const Region* region = Find(entry.key);
    if (region == nullptr || !region->Holds(entry) || (written && !region->writable())) {
      return false;
    }
  }
  return true;
}

}  // namespace verbena::verbs
