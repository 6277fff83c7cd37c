// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/link.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ml {

using verbena::Access;
using verbena::Opcode;
using verbena::RemoteAddress;
using verbena::SendFlags;
using verbena::Sge;

namespace {

// What an immediate holds: the kind, the operation, the credits that go back.
constexpr uint32_t Pack(Kind kind, uint8_t operation, uint32_t credits) {
  return static_cast<uint32_t>(kind) << 24 | static_cast<uint32_t>(operation) << 16 | credits;
}
static_assert(kSlots <= 0xffff, "credits have 16 bits of an immediate");

}  // namespace

absl::StatusOr<std::unique_ptr<Link>> Link::Make(verbena::ProtectionDomain& pd,
                                                 verbena::CompletionQueue& cq, uint32_t peer,
                                                 absl::Status* failure) {
  std::unique_ptr<Link> link(new Link);
  link->failure_ = failure;
  link->peer_ = peer;
  auto inbox = pd.Register(link->inbox_memory_.bytes(), Access::kLocalWrite | Access::kRemoteWrite);
  if (!inbox.ok()) return inbox.status();
  link->inbox_ = *std::move(inbox);
  auto outbox = pd.Register(link->outbox_memory_.bytes(), Access::kLocalRead);
  if (!outbox.ok()) return outbox.status();
  link->outbox_ = *std::move(outbox);
  auto qp = pd.CreateQueuePair(
      {.send_cq = &cq,
       .receive_cq = &cq,
       .limits = {.max_send_wr = kSends, .max_receive_wr = kReceives, .max_send_sge = 1}});
  if (!qp.ok()) return qp.status();
  link->qp_ = *std::move(qp);
  link->max_inline_ = link->qp_.Query().limits.max_inline;
  if (auto posted = link->PostReceives(kReceives); !posted.ok()) return posted;
  return link;
}

// They name no memory: a write with immediate data takes one for its immediate alone.
absl::Status Link::PostReceives(uint32_t count) {
  std::array<verbena::ReceiveWr, kReceives> receives;
  receives.fill({.local = {}, .id = peer_});
  return qp_.PostReceive(std::span(receives).first(count)).ToStatus();
}

RemoteAddress Link::NextSlot() const { return peers_inbox_.at(sent_ % kSlots * kSlotBytes); }

bool Link::Send(Kind kind, uint8_t operation, std::span<const std::byte> bytes) {
  if (bytes.size() <= max_inline_) {
    return Post(kind, operation,
                {reinterpret_cast<uint64_t>(bytes.data()), static_cast<uint32_t>(bytes.size()), 0},
                NextSlot(), true);
  }
  if (credits_ == 0) return false;
  // As the peer's slot, so the outbox's: the credit says that the message there was taken.
  const uint64_t at = sent_ % kSlots * kSmallBytes;
  std::memcpy(outbox_memory_.bytes().data() + at, bytes.data(), bytes.size());
  return Post(kind, operation, outbox_.slice(at, static_cast<uint32_t>(bytes.size())), NextSlot(),
              true);
}

bool Link::SendFrom(uint8_t operation, const Sge& from) {
  return Post(Kind::kSlot, operation, from, NextSlot(), false);
}

bool Link::PlaceFrom(uint8_t operation, const Sge& from, const RemoteAddress& to) {
  return Post(Kind::kPlaced, operation, from, to, false);
}

bool Link::Post(Kind kind, uint8_t operation, const Sge& from, const RemoteAddress& to,
                bool copied) {
  if (credits_ == 0) return false;
  --credits_;
  ++sent_;
  PostNow(kind, operation, from, to, copied);
  return true;
}

void Link::PostNow(Kind kind, uint8_t operation, const Sge& from, const RemoteAddress& to,
                   bool copied) {
  const bool is_inline = copied && from.key == 0;
  const bool courtesy = kind == Kind::kCredit || kind == Kind::kGoodbye;
  const auto posted = qp_.PostSend({.opcode = Opcode::kWriteWithImm,
                                    .local = from.length == 0 ? verbena::SgeList() : from,
                                    .remote = to,
                                    .id = peer_ | kSendBit | (courtesy ? kCourtesyBit : 0),
                                    .flags = is_inline ? SendFlags::kInline : SendFlags::kNone,
                                    .immediate = Pack(kind, operation, std::exchange(owed_, 0))});
  if (!posted.ok()) {
    if (failure_->ok()) *failure_ = posted.ToStatus();
    return;
  }
  ++posted_;
  if (!copied) lent_until_ = posted_;
  ++counters_.messages;
  counters_.bytes += from.length;
  if (copied) counters_.copied += from.length;
}

void Link::Goodbye() { PostNow(Kind::kGoodbye, 0, {}, {}, true); }

void Link::Release() {
  ++taken_;
  if (++owed_ >= kCreditsAlone && !left_) PostNow(Kind::kCredit, 0, {}, {}, true);
}

absl::Status Link::OnReceive(const verbena::WorkCompletion& wc) {
  const uint32_t kind = wc.immediate_or_key >> 24;
  const uint32_t credits = wc.immediate_or_key & 0xffff;
  if (!wc.has_immediate || kind >= kKindCount || credits_ + credits > kSlots) {
    return absl::InternalError(absl::StrCat("rank ", peer_, " does not keep to the protocol"));
  }
  credits_ += credits;
  switch (static_cast<Kind>(kind)) {
    case Kind::kGoodbye:
      left_ = true;
      return absl::OkStatus();  // its receive will not be needed again
    case Kind::kCredit:
      break;
    default:
      if (arrived_ - taken_ == kSlots || wc.length > kSlotBytes) {
        return absl::InternalError(absl::StrCat("rank ", peer_, " sends without a credit"));
      }
      arrivals_[arrived_ % kSlots] = {
          static_cast<Kind>(kind), static_cast<uint8_t>(wc.immediate_or_key >> 16), wc.length,
          inbox_memory_.bytes().subspan(arrived_ % kSlots * kSlotBytes, kSlotBytes)};
      ++arrived_;
  }
  return PostReceives(1);
}

}  // namespace ml
