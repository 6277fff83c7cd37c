// SPDX-License-Identifier: Apache-2.0
// How memory is named in work requests: locally by Sge, at the peer by RemoteAddress.
// Plain values; copying one neither owns nor pins memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace verbena {

// One scatter/gather entry: `length` bytes at `address` (an iova: the host address unless the
// region was registered with another), inside the region whose local key is `key`.
struct Sge {
  uint64_t address = 0;
  uint32_t length = 0;  // bytes
  uint32_t key = 0;
};

// None, one, or many entries without an allocation. Borrows the array of `many` until the post
// that it is given to returns; the entries are copied there.
class SgeList {
 public:
  constexpr SgeList() = default;
  constexpr SgeList(const Sge& one) : one_(one), count_(1) {}  // NOLINT: implicit by design
  constexpr SgeList(std::span<const Sge> many)                 // NOLINT: implicit by design
      : many_(many.data()), count_(static_cast<uint32_t>(many.size())) {}

  constexpr uint32_t size() const { return count_; }
  constexpr const Sge* begin() const { return many_ != nullptr ? many_ : &one_; }
  constexpr const Sge* end() const { return begin() + count_; }
  // An entry that was given by itself; else one of 2^32 - 1 bytes, more than any message.
  constexpr const Sge& one() const { return one_; }
  // The array; null if an entry was given by itself, or none was.
  constexpr const Sge* many() const { return many_; }

 private:
  Sge one_{.address = 0, .length = 0xffffffff, .key = 0};
  const Sge* many_ = nullptr;
  uint32_t count_ = 0;
};

// A place in the peer's memory.
struct RemoteAddress {
  uint64_t address = 0;
  uint32_t key = 0;
};

// A stretch of memory that a peer lends: what applications exchange before one-sided work.
struct RemoteBuffer {
  uint64_t address = 0;
  uint64_t length = 0;  // bytes
  uint32_t key = 0;

  // The place `offset` bytes in. Not checked here: the target checks every access.
  constexpr RemoteAddress at(uint64_t offset) const { return {address + offset, key}; }
};

// 20 bytes, big-endian {address 8, length 8, key 4}: made to travel as private data.
std::string Encode(const RemoteBuffer& buffer);

// InvalidArgument unless `bytes` begins with an encoded RemoteBuffer (a longer tail is allowed,
// since connection managers may deliver padding).
absl::StatusOr<RemoteBuffer> Decode(absl::string_view bytes);

}  // namespace verbena
