// SPDX-License-Identifier: Apache-2.0
#include "rpc/send_ring.h"

namespace verbena::rpc {

std::span<std::byte> SendRing::Reserve(uint32_t bytes) {
  const uint64_t size = memory_.size();
  const uint64_t place = head_ % size;
  // A message does not go round the end.
  const bool fits = place + bytes <= size;
  const uint64_t skipped = fits ? 0 : size - place;
  if (head_ + skipped + bytes - tail_ > size) return {};
  if (fits && place != 0 && !unsent_.empty() && unsent_.back().length + bytes <= most_) {
    unsent_.back().length += bytes;
  } else {
    unsent_.push_back({.start = head_ + skipped, .length = bytes});
  }
  head_ += skipped + bytes;
  return memory_.subspan((head_ - bytes) % size, bytes);
}

SendRing::Message SendRing::Take() {
  const Message message = unsent_.front();
  unsent_.pop_front();
  return message;
}

}  // namespace verbena::rpc
