// SPDX-License-Identifier: Apache-2.0
// One rank's connection to another: messages in order, each a one-sided write with immediate data,
// either into the next slot of an inbox that the peer lends once and for all, or straight into a
// tensor. One thread.
//
// Every message costs a credit, and the receiver gives it back when it is done with the slot. So a
// slot is never written too early, and a receive is always posted: nothing depends on the sender
// being refused and trying again (RNR), which iWARP devices do not have.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "examples/ml/limits.h"
#include "examples/ml/pages.h"
#include "transport/context.h"

namespace ml {

enum class Kind : uint8_t {
  kSlot,     // in the slot
  kPlaced,   // in the tensor; the slot is empty
  kWhere,    // in the slot: the tensor's address, an encoded RemoteBuffer
  kCredit,   // nothing but credits, and costs none
  kGoodbye,  // nothing follows; costs no credit
};
inline constexpr int kKindCount = 5;

struct Arrival {
  Kind kind;
  uint8_t operation;  // low bits of its number
  uint32_t length;    // bytes
  std::span<std::byte> slot;
};

struct LinkCounters {
  uint64_t messages = 0;
  uint64_t bytes = 0;   // of payload
  uint64_t copied = 0;  // of that, into the outbox or inline
};

class Link {
 public:
  // Receives are posted; not yet connected. Completions have `peer` in the low half of their id,
  // and kSendBit if they are of sends; kCourtesyBit, if nobody misses that one. The first post that
  // fails says why in `failure`.
  static absl::StatusOr<std::unique_ptr<Link>> Make(verbena::ProtectionDomain& pd,
                                                    verbena::CompletionQueue& cq, uint32_t peer,
                                                    absl::Status* failure);
  static constexpr uint64_t kSendBit = uint64_t{1} << 32;
  static constexpr uint64_t kCourtesyBit = uint64_t{1} << 33;

  verbena::QueuePair& qp() { return qp_; }
  verbena::RemoteBuffer inbox() const { return inbox_.remote(); }
  void SetPeersInbox(const verbena::RemoteBuffer& inbox) { peers_inbox_ = inbox; }

  // `bytes` are copied: into the request if they are few, else into the outbox. At most
  // kSmallBytes. False: no credit yet.
  bool Send(Kind kind, uint8_t operation, std::span<const std::byte> bytes);
  // Not copied: `from` stays until Idle(). At most kSlotBytes.
  bool SendFrom(uint8_t operation, const verbena::Sge& from);
  bool PlaceFrom(uint8_t operation, const verbena::Sge& from, const verbena::RemoteAddress& to);
  // All that was not copied is at the peer.
  bool Idle() const { return completed_ >= lent_until_; }
  // Tells the peer that this end goes.
  void Goodbye();

  // The oldest message that is there, or null; stays until Release().
  const Arrival* Front() const {
    return taken_ == arrived_ ? nullptr : &arrivals_[taken_ % kSlots];
  }
  void Release();

  // Of the link's own completions. Not OK: what the peer sent makes no sense.
  absl::Status OnReceive(const verbena::WorkCompletion& wc);
  void OnSent() { ++completed_; }

  bool left() const { return left_; }  // the peer said goodbye
  const LinkCounters& counters() const { return counters_; }

 private:
  Link() = default;
  absl::Status PostReceives(uint32_t count);
  bool Post(Kind kind, uint8_t operation, const verbena::Sge& from,
            const verbena::RemoteAddress& to, bool copied);
  void PostNow(Kind kind, uint8_t operation, const verbena::Sge& from,
               const verbena::RemoteAddress& to, bool copied);
  verbena::RemoteAddress NextSlot() const;

  uint64_t peer_ = 0;
  Pages inbox_memory_{size_t{kSlots} * kSlotBytes};
  Pages outbox_memory_{size_t{kSlots} * kSmallBytes};
  verbena::MemoryRegion inbox_;
  verbena::MemoryRegion outbox_;
  verbena::QueuePair qp_;
  verbena::RemoteBuffer peers_inbox_;
  uint32_t max_inline_ = 0;

  uint64_t sent_ = 0;        // messages that cost a credit
  uint64_t posted_ = 0;      // of all kinds
  uint64_t completed_ = 0;   // of those
  uint64_t lent_until_ = 0;  // of those, up to the last whose memory is the caller's
  uint64_t arrived_ = 0;
  uint64_t taken_ = 0;
  uint32_t credits_ = kSlots;
  uint32_t owed_ = 0;
  std::array<Arrival, kSlots> arrivals_{};
  bool left_ = false;
  absl::Status* failure_ = nullptr;
  LinkCounters counters_;
};

}  // namespace ml
