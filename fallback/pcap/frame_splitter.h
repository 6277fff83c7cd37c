// SPDX-License-Identifier: Apache-2.0
// Finds the MPA frames and FPDUs in one direction of a TCP stream, which arrives in any pieces.
// Knows lengths only: what is inside is the reader's to judge. No I/O; one caller at a time.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"

namespace verbena::pcap {

class FrameSplitter {
 public:
  using Take = absl::FunctionRef<void(std::span<const std::byte>)>;

  // Calls `take` for each frame that `bytes` complete. A stream that does not begin as MPA does is
  // given on as it comes.
  void Feed(std::span<const std::byte> bytes, Take take);
  // What is left of a frame that never became whole.
  void Finish(Take take);

 private:
  size_t FrameSize(std::span<const std::byte> from) const;  // 0: too few bytes to tell

  std::vector<std::byte> rest_;  // of the frame under way
  bool begun_ = false;           // its first frame was MPA's
  bool unframed_ = false;
};

}  // namespace verbena::pcap
