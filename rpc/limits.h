// SPDX-License-Identifier: Apache-2.0
// Sizes that both ends of a connection live with. Each with its unit and its reason.
#pragma once

#include <cstddef>
#include <cstdint>

namespace verbena::rpc {

// Receives that an end keeps posted. With 8 KiB each a connection costs half a MiB that is touched
// only when it is used, and a message holds about eighty small frames.
inline constexpr uint16_t kReceives = 64;
inline constexpr uint32_t kReceiveBytes = 8192;

// Frames that wait for credit, or for the peer to have taken them: a ring that the device reads.
inline constexpr uint32_t kSendRingBytes = 256 * 1024;

// Messages in one post.
inline constexpr size_t kMessagesAPost = 8;

// So often a send asks for a completion, which frees the ring up to there; and whenever no other is
// on its way: on kernel TCP the acknowledgement that it causes travels with the peer's answer, and
// one that nobody asked for goes alone.
inline constexpr uint32_t kSignalEvery = 8;

// One-sided operations of a connection in the send queue at once; others wait behind them.
inline constexpr uint32_t kOperationsInFlight = 64;

// A transfer is cut into operations of this size: long enough for line rate, short enough that
// calls of the same connection get between.
inline constexpr uint32_t kChunkBytes = 1024 * 1024;

// Protobuf's own limit.
inline constexpr uint64_t kMostMessage = 0x7fffffff;

// What a peer has to take at least: any status with some text.
inline constexpr uint32_t kLeastMessage = 4096;

// Memory in messages that a connection's peer has not read yet.
inline constexpr uint64_t kMostLentBytes = uint64_t{1} << 30;

// Frames of a server's connection that wait for its peer to tell of receives. A peer that reads may
// have more, as long as the server has memory.
inline constexpr uint64_t kLeastOverflow = uint64_t{1} << 20;

// Bytes of a stream's messages that may be under way or unread. A message longer than what is left
// may still go: no message is too long for a window.
inline constexpr uint32_t kStreamWindow = 256 * 1024;

// Entries of a completion queue before the first connection; it grows with them.
inline constexpr uint32_t kCompletions = 4096;

}  // namespace verbena::rpc
