// SPDX-License-Identifier: Apache-2.0
// How a session's frames leave: the ring, credits, and messages that the peer reads by itself.
//
// Every message costs the sender one of the receives that the peer told of (credits), so none is
// ever refused for want of a receive. The last one is kept for a message that does nothing but tell
// credits: without it both ends could wait for each other.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/session.h"

namespace verbena::rpc {

absl::Status Session::Send(const Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill) {
  if (frame.carried() > peer_.max_message) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "rpc: a message of ", frame.carried(), " bytes, but the peer takes ", peer_.max_message,
        "; raise its max_message or pass the data as a bulk handle"));
  }
  if (FrameBytes(frame) > peer_.receive_bytes) {
    Frame by_address = frame;
    if (auto status = Lend(by_address, fill); !status.ok()) return status;
    return Send(by_address);
  }
  {
    const std::lock_guard lock(lock_);
    if (ended()) return absl::UnavailableError("rpc: the connection has ended");
    ++counters_.frames_sent;
    if (overflow_.empty() && PutLocked(frame, fill)) return absl::OkStatus();
    if (KeepLocked(frame, fill)) return absl::OkStatus();
  }
  const auto why = absl::ResourceExhaustedError(
      absl::StrCat("rpc: the peer does not read, and the server holds ", budget_->used(),
                   " bytes of ", budget_->limit(), " that it may, its max_memory; disconnected"));
  EndSoon(why);
  return why;
}

// False: there is no memory for it.
bool Session::KeepLocked(const Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill) {
  const size_t length = FrameBytes(frame);
  MemoryBudget::Share share;
  if (budget_ != nullptr) {
    share = overflow_bytes_ < kLeastOverflow ? budget_->Count(length) : budget_->Take(length);
    if (!share) return false;
  }
  overflow_bytes_ += length;
  Overflow& kept = overflow_.emplace_back(
      Overflow{.bytes = std::string(length, '\0'), .share = std::move(share)});
  const std::span bytes = std::as_writable_bytes(std::span(kept.bytes));
  Encode(frame, bytes);
  if (!frame.by_address) fill(bytes.subspan(kFrameHeader, frame.carried()));
  return true;
}

bool Session::PutLocked(const Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill) {
  const auto bytes = ring_.Reserve(static_cast<uint32_t>(FrameBytes(frame)));
  if (bytes.empty()) return false;
  Encode(frame, bytes);
  if (!frame.by_address) fill(bytes.subspan(kFrameHeader, frame.carried()));
  return true;
}

// The peer reads it, and says kFetched.
absl::Status Session::Lend(Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill) {
  Lent lent = {.bytes = nullptr, .region = {}, .length = frame.carried(), .share = {}};
  {
    const std::lock_guard lock(lock_);
    if (lent_bytes_ > 0 && lent_bytes_ + lent.length > kMostLentBytes) {
      return absl::ResourceExhaustedError(
          "rpc: the peer has a GiB of this connection's messages yet to read");
    }
  }
  if (budget_ != nullptr && !(lent.share = budget_->Take(lent.length))) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "rpc: a message of ", lent.length, " bytes, and the server holds ", budget_->used(), " of ",
        budget_->limit(), " that it may, its max_memory; try later"));
  }
  lent.bytes.reset(new std::byte[lent.length]);
  const std::span bytes(lent.bytes.get(), lent.length);
  fill(bytes);
  auto region = lane_.domain.Register(bytes, Access::kRemoteRead);
  if (!region.ok()) return region.status();
  lent.region = *std::move(region);
  frame.by_address = true;
  frame.lent = lent.region.remote();
  const std::lock_guard lock(lock_);
  if (ended()) return absl::UnavailableError("rpc: the connection has ended");
  frame.lent_number = next_lent_++;
  lent_bytes_ += lent.length;
  lent_.insert_or_assign(frame.lent_number, std::move(lent));
  return absl::OkStatus();
}

bool Session::AllSent() {
  const std::lock_guard lock(lock_);
  FlushLocked();  // what was put before it was connected: nobody else comes for it
  if (!ring_.unsent().empty() || !overflow_.empty() || !signaled_.empty()) return false;
  if (since_signal_ > 0 && credits_ > 0) PostCreditsLocked(true);
  return since_signal_ == 0 && signaled_.empty();
}

void Session::Flush() {
  const std::lock_guard lock(lock_);
  FlushLocked();
}

void Session::FlushLocked() {
  if (ended()) return;
  bool takes = true;  // the queue pair
  do {
    while (takes && !ring_.unsent().empty() && credits_ > 1) takes = PostMessagesLocked();
  } while (takes && credits_ > 1 && RefillLocked());
  if (owed_ >= kReceives / 2 && credits_ > 0) PostCreditsLocked(since_signal_ + 1 >= kSignalEvery);
}

// One post for several, since each is a way through the device, or a system call. False: it takes
// no more now.
bool Session::PostMessagesLocked() {
  std::array<SendWr, kMessagesAPost> requests;
  size_t count = 0;
  uint16_t credits = owed_;
  for (const SendRing::Message& message : ring_.unsent()) {
    if (count == requests.size() || count + 1 >= credits_) break;
    const auto bytes = ring_.BytesOf(message);
    SetCredits(bytes, std::exchange(credits, 0));
    const auto offset = static_cast<uint64_t>(bytes.data() - memory_.get());
    requests[count++] = {.local = region_.slice(offset, message.length), .id = IdOf(&sent_)};
  }
  const bool signaled = signaled_.empty() || since_signal_ + count >= kSignalEvery;
  if (signaled) requests[count - 1].flags = SendFlags::kSignaled;
  const size_t accepted = PostLocked(std::span(requests).first(count));
  if (accepted == 0) return false;  // full: SendsDone comes back here; in ERR: End does
  for (size_t i = 0; i < accepted; ++i) last_posted_ = ring_.Take();
  CountPostedLocked(accepted, signaled && accepted == count);
  return accepted == count;
}

// The first one tells the peer all that it is owed. It counts before the peer can make use of it.
size_t Session::PostLocked(std::span<const SendWr> requests) {
  told_.fetch_add(owed_);
  const size_t accepted = qp_.PostSend(requests).accepted;
  if (accepted == 0) {
    told_.fetch_sub(owed_);
  } else {
    owed_ = 0;
  }
  return accepted;
}

void Session::CountPostedLocked(size_t messages, bool signaled) {
  credits_ -= static_cast<uint32_t>(messages);
  counters_.messages_sent += messages;
  since_signal_ = signaled ? 0 : since_signal_ + static_cast<uint32_t>(messages);
  if (signaled) signaled_.push_back(last_posted_);
}

// By itself, and not through the ring: it may overtake what waits there for credit.
void Session::PostCreditsLocked(bool signaled) {
  std::array<std::byte, kFrameHeader> bytes;
  Encode({.kind = FrameKind::kCredit, .credits = owed_}, bytes);
  const SendWr request = {
      .local = Sge{.address = reinterpret_cast<uint64_t>(bytes.data()), .length = kFrameHeader},
      .id = IdOf(&sent_),
      .flags = signaled ? SendFlags::kInline | SendFlags::kSignaled : SendFlags::kInline};
  if (PostLocked({&request, 1}) == 1) CountPostedLocked(1, signaled);
}

// Each is for all messages up to a signaled one.
void Session::SendsDone(const WorkCompletion& wc) {
  if (ended()) return;
  if (!wc.ok()) {
    // A receive's flush follows and ends the session; but not on a device that tells this first.
    const absl::Status cause = qp_.cause();
    End(absl::UnavailableError(cause.ok() ? wc.ToStatus().message() : cause.message()));
    return;
  }
  const std::lock_guard lock(lock_);
  ring_.Release(signaled_.front());
  signaled_.pop_front();
  FlushLocked();
  PostChunksLocked();  // none may be under way whose end would do it
}

// True if a frame found room.
bool Session::RefillLocked() {
  bool some = false;
  while (!overflow_.empty()) {
    const std::string& kept = overflow_.front().bytes;
    const auto bytes = ring_.Reserve(static_cast<uint32_t>(kept.size()));
    if (bytes.empty()) break;
    std::memcpy(bytes.data(), kept.data(), kept.size());
    overflow_bytes_ -= kept.size();
    overflow_.pop_front();
    some = true;
  }
  return some;
}

}  // namespace verbena::rpc
