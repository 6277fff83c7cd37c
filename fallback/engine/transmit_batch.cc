// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/transmit_batch.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "fallback/engine/guarded_copy.h"

namespace verbena::engine {

TransmitBatch::TransmitBatch()
    : arena_(new std::byte[kBatchArena]),
      vector_(new iovec[kBatchVectors]),
      external_(new bool[kBatchVectors]) {}

void TransmitBatch::OpenVector(std::byte* at) {
  vector_[vectors_] = {at, 0};
  external_[vectors_++] = false;
  in_arena_ = true;
}

void TransmitBatch::AppendExternal(const std::byte* data, size_t n) {
  if (n <= kCopyLimit) {
    std::memcpy(Append(n), data, n);
    return;
  }
  vector_[vectors_] = {const_cast<std::byte*>(data), n};
  external_[vectors_++] = true;
  in_arena_ = false;
  bytes_ += n;
}

bool TransmitBatch::PrepareCopies() {
  // HasRoom stops at kBatchBytes; one more FPDU may follow.
  if (copies_ == nullptr) {
    copies_.reset(new (std::nothrow) std::byte[kBatchBytes + kLargestUlpdu]);
  }
  return copies_ != nullptr;
}

const std::byte* TransmitBatch::AppendCopy(const std::byte* data, size_t n) {
  std::byte* at = copies_.get() + copied_;
  std::memcpy(at, data, n);
  copied_ += n;
  bytes_ += n;
  vector_[vectors_] = {at, n};
  external_[vectors_++] = true;
  in_arena_ = false;
  return at;
}

void TransmitBatch::Sent(size_t n) {
  sent_ += n;
  if (sent_ == bytes_) {
    Clear();
    return;
  }
  while (n > 0) {
    iovec& v = vector_[first_];
    if (n < v.iov_len) {
      v.iov_base = static_cast<std::byte*>(v.iov_base) + n;
      v.iov_len -= n;
      return;
    }
    n -= v.iov_len;
    ++first_;
  }
}

void TransmitBatch::Clear() {
  arena_used_ = copied_ = bytes_ = sent_ = 0;
  vectors_ = first_ = 0;
  in_arena_ = false;
}

bool TransmitBatch::Detach() {
  const size_t rest = unsent();
  std::unique_ptr<std::byte[]> copy;
  if (rest > 0) copy.reset(new (std::nothrow) std::byte[rest]);
  if (copy == nullptr) {
    Clear();
    return rest == 0;
  }
  size_t done = 0;
  for (int i = first_; i < vectors_; ++i) {
    const iovec& v = vector_[i];
    if (!external_[i]) {
      std::memcpy(copy.get() + done, v.iov_base, v.iov_len);
    } else if (!GuardedRead(copy.get() + done, static_cast<const std::byte*>(v.iov_base),
                            v.iov_len)) {
      // A file that was truncated after its bytes were framed: they are nobody's any more.
      std::memset(copy.get() + done, 0, v.iov_len);
    }
    done += v.iov_len;
  }
  Clear();
  rest_ = std::move(copy);
  vector_[0] = {rest_.get(), rest};
  external_[0] = false;
  vectors_ = 1;
  bytes_ = rest;
  return true;
}

}  // namespace verbena::engine
