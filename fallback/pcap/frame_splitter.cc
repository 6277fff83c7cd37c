// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/frame_splitter.h"

#include <cstdint>
#include <cstring>

#include "fallback/wire/mpa.h"

namespace verbena::pcap {

namespace {
constexpr size_t kTellsFramesApart = 4;
constexpr size_t kCrc = 4;
}  // namespace

void FrameSplitter::Feed(std::span<const std::byte> bytes, Take take) {
  rest_.insert(rest_.end(), bytes.begin(), bytes.end());
  if (!begun_ && !unframed_) unframed_ = wire::MpaKeyMismatch(rest_) != nullptr;
  if (unframed_) return Finish(take);
  std::span<const std::byte> left = rest_;
  for (;;) {
    const size_t size = FrameSize(left);
    if (size == 0 || left.size() < size) break;
    take(left.first(size));
    left = left.subspan(size);
    begun_ = true;
  }
  rest_.erase(rest_.begin(), rest_.end() - static_cast<std::ptrdiff_t>(left.size()));
}

void FrameSplitter::Finish(Take take) {
  if (!rest_.empty()) take(rest_);
  rest_.clear();
}

// An MPA frame may come later, too: a second Request on a connection whose first was rejected. It
// is no FPDU, since "MPA " read as one has version 0 in its RDMAP byte.
size_t FrameSplitter::FrameSize(std::span<const std::byte> from) const {
  if (from.size() < kTellsFramesApart) return 0;
  if (std::memcmp(from.data(), wire::kMpaRequestKey.data(), kTellsFramesApart) == 0) {
    if (from.size() < sizeof(wire::MpaHeader)) return 0;
    return sizeof(wire::MpaHeader) + wire::Load<wire::MpaHeader>(from.data()).private_data_length;
  }
  const size_t length = sizeof(uint16_t) + wire::Load<wire::Be16>(from.data());
  return length + (-length & 3) + kCrc;
}

}  // namespace verbena::pcap
