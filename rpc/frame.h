// SPDX-License-Identifier: Apache-2.0
// What two ends of an RPC connection say to each other. A message (one Send) is any number of
// frames one behind the other; a frame is a header of 32 bytes, big-endian, then what it carries,
// padded to a multiple of 8. Plain values; nothing that a peer wrote is used before Decode took it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "transport/memory.h"

namespace verbena::rpc {

// If you add one: Decode's switch, Session::Take, frame_test.cc's table, docs/rpc.md.
enum class FrameKind : uint8_t {
  kRequest = 1,   // caller: begins a call
  kResponse = 2,  // server: ends it
  kCancel = 3,    // caller: nobody waits for the answer any more
  kFetched = 4,   // either: what was offered by address was read, its memory is free
  kCredit = 5,    // either: receives were posted again, nothing else
  kGoAway = 6,    // server: begin no more calls here
  kMessage = 7,   // either: one more message of a stream
  kWindow = 8,    // either: `code` more bytes of messages may come
};
inline constexpr uint8_t kLastFrameKind = 8;

struct Frame {
  FrameKind kind = FrameKind::kCredit;
  // The carried bytes are not here but in the sender's memory, at `lent`.
  bool by_address = false;
  bool last = false;         // kMessage: it carries nothing, and none follows in this direction
  uint16_t credits = 0;      // receives that the sender of this frame posted again
  uint32_t call = 0;         // the caller's number for it
  uint64_t method = 0;       // kRequest: MethodId() of its full name
  uint32_t code = 0;         // kResponse: absl::StatusCode; kFetched: `lent_number`; kWindow: bytes
  uint32_t timeout_us = 0;   // kRequest: what is left of its time; 0: no deadline
  uint32_t head = 0;         // bytes of CallHead or CallEnd in front of
  uint32_t body = 0;         // … the message
  RemoteBuffer lent = {};    // by_address only
  uint32_t lent_number = 0;  // … which of its sender's

  uint64_t carried() const { return uint64_t{head} + body; }
};

inline constexpr size_t kFrameHeader = 32;
inline constexpr size_t kLentBytes = 24;

// What Encode writes, padding included. Frames that carry their bytes leave room for them.
size_t FrameBytes(const Frame& frame);

// Header and, by address, `lent`, to the front of `out`; the carried bytes are the caller's to fill
// in behind the header. `out` has FrameBytes(frame).
void Encode(const Frame& frame, std::span<std::byte> out);

// Credits are known only when a message leaves: they go into its first frame.
void SetCredits(std::span<std::byte> encoded, uint16_t credits);

// The frame at the front of `in`. Null, or what is wrong with it.
const char* Decode(std::span<const std::byte> in, Frame* frame);

// FNV-1a of "/package.Service/Method", 64 bits: what a request names its method by.
constexpr uint64_t MethodId(absl::string_view full_name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : full_name) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 0x100000001b3;
  }
  return hash;
}

// Private data of both ends: what this end has room for.
struct Hello {
  uint16_t receives = 0;
  uint32_t receive_bytes = 0;
  uint32_t max_message = 0;  // head and body of a frame, at most
};
inline constexpr size_t kHelloBytes = 16;
std::string EncodeHello(const Hello& hello);
// InvalidArgument: not an RPC peer, another version, or sizes that cannot be. A longer tail is
// allowed, since connection managers deliver padding.
absl::StatusOr<Hello> DecodeHello(absl::string_view bytes);

}  // namespace verbena::rpc
