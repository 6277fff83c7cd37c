// SPDX-License-Identifier: Apache-2.0
#include "rpc/frame.h"

#include <cstring>

#include "absl/base/internal/endian.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "rpc/limits.h"

namespace verbena::rpc {
namespace {

using absl::big_endian::Load16;
using absl::big_endian::Load32;
using absl::big_endian::Load64;
using absl::big_endian::Store16;
using absl::big_endian::Store32;
using absl::big_endian::Store64;

// Flags; the others must be 0.
constexpr uint8_t kByAddress = 1;
constexpr uint8_t kLast = 2;

constexpr size_t kBufferBytes = 20;  // of kLentBytes; then the number

// Where each field stands.
enum Offset : uint8_t {
  kKindAt = 0,
  kFlagsAt = 1,
  kCreditsAt = 2,
  kCallAt = 4,
  kMethodAt = 8,
  kCodeAt = 16,
  kTimeoutAt = 20,
  kHeadAt = 24,
  kBodyAt = 28,
};
static_assert(kBodyAt + 4 == kFrameHeader);

constexpr char kMagic[4] = {'V', 'R', 'P', 'C'};
constexpr uint16_t kVersion = 1;

constexpr uint64_t Padded(uint64_t bytes) { return (bytes + 7) & ~uint64_t{7}; }

uint64_t WireBytes(const Frame& frame) {
  return Padded(kFrameHeader + (frame.by_address ? kLentBytes : frame.carried()));
}

bool MayCarry(FrameKind kind) {
  return kind == FrameKind::kRequest || kind == FrameKind::kResponse || kind == FrameKind::kMessage;
}

}  // namespace

size_t FrameBytes(const Frame& frame) { return WireBytes(frame); }

void Encode(const Frame& frame, std::span<std::byte> out) {
  std::byte* at = out.data();
  at[kKindAt] = static_cast<std::byte>(frame.kind);
  at[kFlagsAt] =
      static_cast<std::byte>((frame.by_address ? kByAddress : 0) | (frame.last ? kLast : 0));
  Store16(at + kCreditsAt, frame.credits);
  Store32(at + kCallAt, frame.call);
  Store64(at + kMethodAt, frame.method);
  Store32(at + kCodeAt, frame.code);
  Store32(at + kTimeoutAt, frame.timeout_us);
  Store32(at + kHeadAt, frame.head);
  Store32(at + kBodyAt, frame.body);
  if (frame.by_address) {
    const std::string lent = Encode(frame.lent);
    std::memcpy(at + kFrameHeader, lent.data(), kBufferBytes);
    Store32(at + kFrameHeader + kBufferBytes, frame.lent_number);
  }
  // The padding is seen by the peer: nothing of ours may stand in it.
  const size_t used = kFrameHeader + (frame.by_address ? kLentBytes : frame.carried());
  std::memset(at + used, 0, FrameBytes(frame) - used);
}

void SetCredits(std::span<std::byte> encoded, uint16_t credits) {
  Store16(encoded.data() + kCreditsAt, credits);
}

const char* Decode(std::span<const std::byte> in, Frame* frame) {
  if (in.size() < kFrameHeader) return "a frame that ends inside of its header";
  const std::byte* at = in.data();
  const auto kind = static_cast<uint8_t>(at[kKindAt]);
  const auto flags = static_cast<uint8_t>(at[kFlagsAt]);
  if (kind == 0 || kind > kLastFrameKind) return "a frame of an unknown kind";
  if ((flags & ~(kByAddress | kLast)) != 0) return "a frame with unknown flags";
  frame->kind = static_cast<FrameKind>(kind);
  frame->by_address = (flags & kByAddress) != 0;
  frame->last = (flags & kLast) != 0;
  frame->credits = Load16(at + kCreditsAt);
  frame->call = Load32(at + kCallAt);
  frame->method = Load64(at + kMethodAt);
  frame->code = Load32(at + kCodeAt);
  frame->timeout_us = Load32(at + kTimeoutAt);
  frame->head = Load32(at + kHeadAt);
  frame->body = Load32(at + kBodyAt);
  if (!MayCarry(frame->kind) && (frame->by_address || frame->carried() != 0)) {
    return "a frame that carries bytes but may not";
  }
  if (frame->last && (frame->kind != FrameKind::kMessage || frame->carried() != 0)) {
    return "a last message that is none";
  }
  if (WireBytes(*frame) > in.size()) return "a frame that is longer than its message";
  if (!frame->by_address) return nullptr;
  const auto* lent = reinterpret_cast<const char*>(at + kFrameHeader);
  auto buffer = verbena::Decode(absl::string_view(lent, kBufferBytes));
  if (!buffer.ok()) return "a frame whose memory cannot be";
  frame->lent = *buffer;
  frame->lent_number = Load32(at + kFrameHeader + kBufferBytes);
  if (frame->lent.length != frame->carried() || frame->carried() == 0) {
    return "a frame whose memory is not as long as what it carries";
  }
  return nullptr;
}

std::string EncodeHello(const Hello& hello) {
  std::string out(kHelloBytes, '\0');
  std::memcpy(out.data(), kMagic, sizeof(kMagic));
  Store16(out.data() + 4, kVersion);
  Store16(out.data() + 6, hello.receives);
  Store32(out.data() + 8, hello.receive_bytes);
  Store32(out.data() + 12, hello.max_message);
  return out;
}

absl::StatusOr<Hello> DecodeHello(absl::string_view bytes) {
  if (bytes.size() < kHelloBytes || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    return absl::InvalidArgumentError("the peer does not speak Verbena's RPC");
  }
  if (const uint16_t version = Load16(bytes.data() + 4); version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("the peer speaks version ", version,
                                                   " of Verbena's RPC, this end ", kVersion));
  }
  const Hello hello = {.receives = Load16(bytes.data() + 6),
                       .receive_bytes = Load32(bytes.data() + 8),
                       .max_message = Load32(bytes.data() + 12)};
  // Two receives are the least with which credits get round; any frame by address must fit.
  if (hello.receives < 2 || hello.receive_bytes < Padded(kFrameHeader + kLentBytes) ||
      hello.max_message < kLeastMessage) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the peer posts ", hello.receives, " receives of ", hello.receive_bytes,
        " bytes, and takes messages of ", hello.max_message, ": too little for any call"));
  }
  return hello;
}

}  // namespace verbena::rpc
