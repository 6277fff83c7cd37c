// SPDX-License-Identifier: Apache-2.0
// What is posted to queue pairs and shared receive queues. Names and meaning: ibv_post_send(3),
// ibv_post_recv(3). Plain values; everything they point to is read before the post returns,
// except the registered memory itself, which belongs to the request until it completes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "transport/access.h"
#include "transport/memory.h"

namespace verbena {

class AddressHandle;
class MemoryRegion;
class MemoryWindow;

enum class Opcode : uint8_t {
  kSend,
  kSendWithImm,
  kSendWithInvalidate,
  kWrite,
  kWriteWithImm,
  kRead,
  kCompareSwap,
  kFetchAdd,
  kLocalInvalidate,
  kBindWindow,
};
inline constexpr int kOpcodeCount = 10;

enum class SendFlags : uint8_t {
  kNone = 0,
  kSignaled = 1,   // make a completion (always made where the queue pair signals all)
  kSolicited = 2,  // wake a peer that asked for solicited events only
  kFence = 4,      // start after every earlier read and atomic of this queue pair is complete
  kInline = 8,     // copy the data at post; `local` may then be any memory, the key is ignored
};
constexpr SendFlags operator|(SendFlags a, SendFlags b) {
  return static_cast<SendFlags>(static_cast<uint8_t>(a) | static_cast<uint8_t>(b));
}
constexpr bool Has(SendFlags flags, SendFlags bit) {
  return (static_cast<uint8_t>(flags) & static_cast<uint8_t>(bit)) != 0;
}

// kCompareSwap: if *remote == compare_add then *remote = swap. kFetchAdd: *remote += compare_add.
// Both bring the former value, 8 bytes in host order, into `local`.
struct AtomicOperands {
  uint64_t compare_add = 0;
  uint64_t swap = 0;
};

// For kBindWindow: lends [address, address + length) of `region` under the window's new key. The
// window must be free: never bound, or invalidated (IBTA 10.6.7.2, type 2); length is not 0. Both
// objects refuse to close until the request completes.
struct WindowBinding {
  MemoryWindow* window = nullptr;
  const MemoryRegion* region = nullptr;
  uint64_t address = 0;
  uint64_t length = 0;
  Access access = Access::kLocalRead;  // of kRemoteRead, kRemoteWrite, kRemoteAtomic
};

// For queue pairs of QpType::kUd, to which every send needs it.
struct Destination {
  const AddressHandle* address = nullptr;  // may be closed when the post has returned
  uint32_t qp_number = 0;                  // kMulticastQpNumber: whoever is attached to the group
  uint32_t qkey = 0;                       // with its highest bit set: the queue pair's own is sent
};

struct SendWr {
  Opcode opcode = Opcode::kSend;
  SgeList local = {};         // gathered by sends and writes, scattered into by reads and atomics
  RemoteAddress remote = {};  // one-sided operations only
  uint64_t id = 0;            // returned in WorkCompletion::id
  SendFlags flags = SendFlags::kNone;
  uint32_t immediate = 0;   // kSendWithImm, kWriteWithImm
  uint32_t invalidate = 0;  // key: kSendWithInvalidate (the peer's), kLocalInvalidate (ours)
  AtomicOperands atomic = {};
  WindowBinding bind = {};
  Destination to = {};
};

struct ReceiveWr {
  SgeList local = {};
  uint64_t id = 0;
};

// Why a post was refused. Everything else that can go wrong is a WcStatus of a completion.
enum class PostError : uint8_t {
  kNone,
  kQueueFull,        // ENOMEM: poll completions first
  kInvalidState,     // EINVAL: sends need RTS (or SQD, ERR), receives at least INIT
  kTooManySges,      // EINVAL
  kInlineTooLong,    // EINVAL: more than the queue pair's max_inline
  kInvalidOpcode,    // EINVAL: not an opcode of this type, or flags that it does not take
  kUnsupported,      // EOPNOTSUPP: the peer cannot do it; see QueuePair::capabilities()
  kUsesSharedQueue,  // EINVAL: this queue pair takes its receives from a shared receive queue
  kDead,             // EIO: its device is gone
  kMessageTooLong,   // EINVAL: a datagram over DeviceAttributes::max_datagram
  kNoDestination,    // EINVAL: a datagram without an address handle of this device
};

// Fact and remedy for people: "the queue is full. Poll completions, then …".
const char* PostErrorText(PostError error);

// The first `accepted` requests were taken; `error` says why the next one was not (verbs' bad_wr).
struct PostResult {
  size_t accepted = 0;
  PostError error = PostError::kNone;

  bool ok() const { return error == PostError::kNone; }
  absl::Status ToStatus() const;
};

}  // namespace verbena
