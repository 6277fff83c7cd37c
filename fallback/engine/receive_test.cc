// SPDX-License-Identifier: Apache-2.0
// Where the receive calls put what comes: large payloads into their targets, all else into the
// buffer, as much as there is.
#include <array>
#include <cstring>

#include "fallback/engine/test_cable.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

struct Calls {
  int calls = 0;
  size_t copied = 0;  // bytes that came into the buffer, to be copied again
};

// All of `stream` is there, whenever `side` asks.
Calls Receive(Side& side, std::span<const std::byte> stream) {
  Calls made;
  while (!stream.empty()) {
    std::array<iovec, kMaxSge + 1> space;
    const int count = side.qp.ReceiveSpace(space.data(), static_cast<int>(space.size()));
    size_t received = 0;
    for (int i = 0; i < count; ++i) {
      const size_t n = std::min(space[i].iov_len, stream.size());
      std::memcpy(space[i].iov_base, stream.data(), n);
      stream = stream.subspan(n);
      received += n;
      if (i == count - 1) made.copied += n;
    }
    ++made.calls;
    side.qp.Received(received, 0);
  }
  return made;
}

constexpr int kMessages = 32;

TEST(ReceiveSpace, LargePayloadsInARowAreReceivedInPlace) {
  // 32 writes of a size wait in the socket. With 64 KiB the stream repeats itself nearly as often
  // as the buffer is full.
  // Expect: no more than a bufferful is copied; behind that two times 64 bytes a segment.
  for (const uint32_t size : {8192u, 32768u, 61440u, 65536u}) {
    Wired w;
    Memory from(&w.a, size), to(&w.b, size);
    from.Fill(1);
    for (int i = 0; i < kMessages; ++i) w.a.Post(WriteOf(from.sge(), to.at(), 1));
    const Calls made = Receive(w.b, w.a.Drain());
    const size_t segments = kMessages * (size / 32768 + 1);
    EXPECT_LE(made.copied, kReceiveBuffer + segments * 2 * kBehindDirect) << size;
    EXPECT_TRUE(to.Has(1, 0, size));
  }
}

TEST(ReceiveSpace, SmallOnesBehindALargeOneShareACall) {
  // A write of 64 KiB, then 512 of 64 bytes, or reads; all there. More than a bufferful.
  // Expect: no call for each: what followed a large payload once is not expected for ever.
  for (const Opcode opcode : {Opcode::kWrite, Opcode::kRead}) {
    SideOptions wide;
    wide.limits.max_send_wr = 1024;
    Wired w(Chunks(0), false, wide, {.number = 2});
    Memory from(&w.a, 65536), to(&w.b, 65536);
    w.a.Post(WriteOf(from.sge(), to.at(), 1));
    for (int i = 0; i < (opcode == Opcode::kRead ? 16 : 512); ++i) {
      w.a.Post({.opcode = opcode, .local = from.sge(0, 64), .remote = to.at(), .id = 2});
    }
    EXPECT_LE(Receive(w.b, w.a.Drain()).calls, 7);
  }
}

}  // namespace
}  // namespace verbena::engine
