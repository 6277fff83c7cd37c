// SPDX-License-Identifier: Apache-2.0
// What one send call is gathered from: headers, trailers and small payloads in an arena, large
// payloads where they lie in registered memory.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "fallback/engine/limits.h"

namespace verbena::engine {

class TransmitBatch {
 public:
  TransmitBatch();

  bool empty() const { return sent_ == bytes_; }
  size_t unsent() const { return bytes_ - sent_; }
  // Room for one more FPDU of any shape?
  bool HasRoom() const {
    return bytes_ < kBatchBytes && arena_used_ + kFpduArena <= kBatchArena &&
           vectors_ + kFpduVectors <= kBatchVectors;
  }

  // Appends `n` bytes of arena, to be filled by the caller.
  std::byte* Append(size_t n) {
    std::byte* at = arena_.get() + arena_used_;
    arena_used_ += n;
    bytes_ += n;
    if (!in_arena_) OpenVector(at);
    vector_[vectors_ - 1].iov_len += n;
    return at;
  }
  std::byte* next() { return arena_.get() + arena_used_; }  // of what Append will append
  // Appends memory that stays where it is. Small pieces are copied.
  void AppendExternal(const std::byte* data, size_t n);
  // Makes room for AppendCopy, once. False: there is no memory for that.
  [[nodiscard]] bool PrepareCopies();
  // Appends a copy of any size, and says where it is: for a CRC, which must be of the bytes that go
  // out, whatever happens to the memory meanwhile.
  const std::byte* AppendCopy(const std::byte* data, size_t n);

  std::span<const iovec> Vectors() const {
    return {vector_.get() + first_, static_cast<size_t>(vectors_ - first_)};
  }
  void Sent(size_t n);  // the first n of the unsent bytes have left
  void Clear();         // only when empty, or to forget what is there

  // Copies what lies outside and is not sent yet, so that its memory may go while the stream stays
  // whole: neither an error nor a deregistration may cut it in the middle of an FPDU. Cold,
  // allocates. False: no memory for that, and what was unsent is forgotten.
  [[nodiscard]] bool Detach();

 private:
  // One FPDU at most: header with body, then for each entry a copied piece, and the trailer.
  static constexpr size_t kFpduArena = 96 + (kMaxSge + 2) * kCopyLimit;
  static constexpr int kFpduVectors = 2 * kMaxSge + 2;
  void OpenVector(std::byte* at);

  std::unique_ptr<std::byte[]> arena_;
  std::unique_ptr<iovec[]> vector_;
  std::unique_ptr<bool[]> external_;
  std::unique_ptr<std::byte[]> copies_;  // AppendCopy's
  size_t copied_ = 0;
  std::unique_ptr<std::byte[]> rest_;  // Detach's copy
  size_t arena_used_ = 0;
  size_t bytes_ = 0;  // gathered
  size_t sent_ = 0;
  int vectors_ = 0;
  int first_ = 0;          // vector not yet fully sent
  bool in_arena_ = false;  // the last vector ends where the arena goes on
};

}  // namespace verbena::engine
