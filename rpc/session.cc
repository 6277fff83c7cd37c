// SPDX-License-Identifier: Apache-2.0
#include "rpc/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::rpc {
namespace {

// Of each connection in the completion queue: receives, sends, chunks.
constexpr uint32_t kMaxSends = 2 * kReceives;
constexpr uint32_t kEntries = kReceives + kMaxSends + kOperationsInFlight;
constexpr size_t kMemoryBytes = kSendRingBytes + size_t{kReceives} * kReceiveBytes;

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Make(Driver& driver, Device& device,
                                                       uint32_t max_message, SessionUser& user,
                                                       MemoryBudget* budget) {
  auto lane = driver.LaneOn(device, kEntries);
  if (!lane.ok()) return lane.status();
  std::unique_ptr<Session> session(new Session(driver, **lane, max_message, user, budget));
  if (auto status = session->SetUp(); !status.ok()) return status;
  return session;
}

Session::Session(Driver& driver, Lane& lane, uint32_t max_message, SessionUser& user,
                 MemoryBudget* budget)
    : driver_(driver),
      lane_(lane),
      user_(user),
      max_message_(max_message),
      budget_(budget),
      memory_(new std::byte[kMemoryBytes]),  // untouched until used
      ring_({memory_.get(), kSendRingBytes}, kReceiveBytes) {}

absl::Status Session::SetUp() {
  auto region = lane_.domain.Register({memory_.get(), kMemoryBytes}, Access::kLocalWrite);
  if (!region.ok()) return region.status();
  region_ = *std::move(region);
  auto qp = lane_.domain.CreateQueuePair({.send_cq = &lane_.completions,
                                          .receive_cq = &lane_.completions,
                                          .limits = {.max_send_wr = kMaxSends + kOperationsInFlight,
                                                     .max_receive_wr = kReceives,
                                                     .max_send_sge = 1,
                                                     .max_receive_sge = 1,
                                                     .max_inline = kFrameHeader},
                                          .signal = Signal::kSelective,
                                          .context = this});
  if (!qp.ok()) return qp.status();
  qp_ = *std::move(qp);
  sent_.session = this;
  for (uint32_t i = 0; i < kReceives; ++i) {
    receives_[i].session = this;
    receives_[i].index = i;
    PostReceive(receives_[i]);
  }
  return absl::OkStatus();
}

Session::~Session() {
  (void)qp_.Close();  // what it left in the completion queue is never delivered
  driver_.Forget(*this);
  driver_.GiveBack(lane_, kEntries);
}

std::string Session::hello() const {
  return EncodeHello(
      {.receives = kReceives, .receive_bytes = kReceiveBytes, .max_message = max_message_});
}

absl::Status Session::SetPeer(absl::string_view private_data) {
  auto hello = DecodeHello(private_data);
  if (!hello.ok()) return hello.status();
  const std::lock_guard lock(lock_);
  peer_ = *hello;
  peer_.receive_bytes = std::min(peer_.receive_bytes, kReceiveBytes);
  credits_ = std::min<uint32_t>(peer_.receives, kMaxSends);
  ring_ = SendRing({memory_.get(), kSendRingBytes}, peer_.receive_bytes);
  return absl::OkStatus();
}

void Session::PostReceive(Receive& receive) {
  const uint64_t offset = kSendRingBytes + uint64_t{receive.index} * kReceiveBytes;
  (void)qp_.PostReceive({.local = region_.slice(offset, kReceiveBytes), .id = IdOf(&receive)});
}

void Session::Received(Receive& receive, const WorkCompletion& wc) {
  if (ended()) return;
  if (!wc.ok()) {
    const absl::Status cause = qp_.cause();
    const std::string why = cause.ok() ? "the peer closed the connection" : cause.ToString();
    End(absl::UnavailableError(why));
    return;
  }
  const size_t offset = kSendRingBytes + size_t{receive.index} * kReceiveBytes;
  if (told_.fetch_sub(1) == 0) {
    return End(absl::InternalError("rpc: the peer sends without credit; disconnected"));
  }
  if (const char* wrong = Take({memory_.get() + offset, wc.length}); wrong != nullptr) {
    End(absl::InternalError(absl::StrCat("rpc: the peer sent ", wrong, "; disconnected")));
    return;
  }
  if (ended()) return;
  PostReceive(receive);
  bool flush = false;
  {
    const std::lock_guard lock(lock_);
    ++owed_;
    // At depth the other end works on these while this one works on: it does not wait for the round
    // to end, and this one not for it.
    if (ring_.unsent_bytes() * 2 >= peer_.receive_bytes) FlushLocked();
    flush = owed_ >= kReceives / 2 || !ring_.unsent().empty() || !overflow_.empty();
  }
  if (flush) FlushSoon();
}

// All frames of a message. Null, or what is wrong.
const char* Session::Take(std::span<const std::byte> message) {
  if (message.empty()) return "an empty message";
  while (!message.empty() && !ended()) {
    Frame frame;
    if (const char* wrong = Decode(message, &frame); wrong != nullptr) return wrong;
    frames_received_.store(frames_received_.load(std::memory_order_relaxed) + 1,
                           std::memory_order_relaxed);
    if (frame.credits != 0 || frame.kind == FrameKind::kFetched) {
      const std::lock_guard lock(lock_);
      credits_ += frame.credits;
      if (credits_ > 65535) return "more credits than there are receives";
      if (frame.kind == FrameKind::kFetched) TakeBackLocked(frame.code);
    }
    if (frame.carried() > max_message_) return "a message longer than this end takes";
    const auto carried =
        message.subspan(kFrameHeader, frame.by_address ? 0 : static_cast<size_t>(frame.carried()));
    if (const char* wrong = Deliver(frame, carried); wrong != nullptr) return wrong;
    message = message.subspan(FrameBytes(frame));
  }
  return nullptr;
}

void Session::TakeBackLocked(uint32_t number) {
  const auto found = lent_.find(number);
  if (found == lent_.end()) return;
  lent_bytes_ -= found->second.length;
  lent_.erase(found);
}

// To the user now, or behind what is still being read of the same call.
const char* Session::Deliver(const Frame& frame, std::span<const std::byte> carried) {
  switch (frame.kind) {
    case FrameKind::kFetched:
    case FrameKind::kCredit:
      return nullptr;
    case FrameKind::kRequest:
    case FrameKind::kResponse:
    case FrameKind::kMessage:
      if (frame.by_address || lines_.contains(frame.call)) return Enqueue(frame, carried);
      break;
    default:
      break;
  }
  return user_.OnFrame(*this, frame, carried);
}

void Session::End(const absl::Status& why) {
  if (ended_.exchange(true)) return;
  (void)qp_.Disconnect();
  std::deque<Transfer*> waiting;
  absl::flat_hash_map<uint32_t, Lent> lent;
  std::deque<Overflow> overflow;
  {
    const std::lock_guard lock(lock_);
    waiting.swap(transfers_);
    lent.swap(lent_);
    overflow.swap(overflow_);
  }
  to_fetch_.clear();
  user_.OnEnd(*this, why);
  for (Transfer* transfer : waiting) {
    if (transfer->status.ok()) transfer->status = why;
    if (transfer->in_flight == 0) EndTransfer(*transfer);
  }
  if (quiet()) user_.OnQuiet(*this);
}

// Any thread.
void Session::EndSoon(const absl::Status& why) {
  pins.fetch_add(1);
  driver_.Post([this, why] {
    pins.fetch_sub(1);
    if (!ended()) return End(why);
    if (quiet()) user_.OnQuiet(*this);  // which was said while the pin was there
  });
}

SessionCounters Session::counters() const {
  const std::lock_guard lock(lock_);
  SessionCounters counters = counters_;
  counters.frames_received = frames_received_.load();
  return counters;
}

}  // namespace verbena::rpc
