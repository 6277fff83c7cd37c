// SPDX-License-Identifier: Apache-2.0
#include "rpc/stream.h"

#include <cstring>
#include <utility>

#include "rpc/limits.h"
#include "rpc/session.h"

namespace verbena::rpc {
namespace {

// Also of an empty message: a window is never open for ever.
uint32_t Weight(size_t bytes) { return static_cast<uint32_t>(bytes + kFrameHeader); }

}  // namespace

MessageStream::Done MessageStream::Attach(Session& session, uint32_t call) {
  const std::lock_guard lock(lock_);
  session_ = &session;
  call_ = call;
  may_send_ = kStreamWindow;
  const bool waited = std::exchange(has_pending_, false);
  if (waited) SendLocked(pending_);
  if (writes_done_) SendLastLocked();
  return waited ? std::exchange(writing_, nullptr) : Done();
}

void MessageStream::Write(const google::protobuf::MessageLite& message, Done done) {
  bool can = false;
  {
    const std::lock_guard lock(lock_);
    can = !ended_ && !writes_done_ && !has_pending_;
    if (can && message.ByteSizeLong() > kMostMessage) {
      can = false;
      if (broken_) broken_(absl::ResourceExhaustedError("rpc: a message of more than 2 GiB"));
    }
    if (can) {
      pending_ = message.SerializeAsString();
      if (session_ == nullptr || may_send_ <= 0) {
        has_pending_ = true;
        writing_ = std::move(done);
        return;
      }
      SendLocked(pending_);
    }
  }
  done(can);
}

void MessageStream::WritesDone() {
  const std::lock_guard lock(lock_);
  if (ended_ || std::exchange(writes_done_, true)) return;
  if (session_ != nullptr && !has_pending_) SendLastLocked();
}

void MessageStream::SendLocked(const std::string& message) {
  may_send_ -= Weight(message.size());
  sent_bytes_ += message.size();
  const absl::Status sent = session_->Send(
      {.kind = FrameKind::kMessage, .call = call_, .body = static_cast<uint32_t>(message.size())},
      [&](std::span<std::byte> out) { std::memcpy(out.data(), message.data(), message.size()); });
  if (!sent.ok() && broken_) broken_(sent);
  session_->FlushSoon();
}

void MessageStream::SendLastLocked() {
  (void)session_->Send({.kind = FrameKind::kMessage, .last = true, .call = call_});
  session_->FlushSoon();
}

const char* MessageStream::OnWindow(uint32_t bytes) {
  Done done;
  {
    const std::lock_guard lock(lock_);
    if (ended_) return nullptr;
    may_send_ += bytes;
    // It is what bounds the memory that a writer takes.
    if (may_send_ > kStreamWindow) return "a window that was not used";
    if (may_send_ <= 0 || !std::exchange(has_pending_, false)) return nullptr;
    SendLocked(pending_);
    if (writes_done_) SendLastLocked();
    done = std::exchange(writing_, nullptr);
  }
  done(true);
  return nullptr;
}

const char* MessageStream::OnMessage(bool last, std::span<const std::byte> bytes) {
  Done done;
  bool result = false;
  absl::Status broken;
  {
    const std::lock_guard lock(lock_);
    if (ended_) return nullptr;
    if (all_came_) return "a message behind a stream's last one";
    if (outstanding_ >= kStreamWindow && !last) return "more of a stream than its window";
    if (last) {
      all_came_ = true;
    } else {
      outstanding_ += Weight(bytes.size());
      received_bytes_ += bytes.size();
      Unread& unread = unread_.emplace_back();
      unread.bytes.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      const bool is_long = budget_ != nullptr && bytes.size() > kReceiveBytes;
      if (is_long) unread.share = budget_->Count(bytes.size());
    }
    if (reading_ == nullptr || !TakeLocked(&done, &result, &broken)) return nullptr;
  }
  if (!broken.ok() && broken_) broken_(broken);
  done(result);
  return nullptr;
}

void MessageStream::Read(google::protobuf::MessageLite* into, Done done) {
  bool result = false;
  absl::Status broken;
  {
    const std::lock_guard lock(lock_);
    reading_ = into;
    read_ = std::move(done);
    if (!TakeLocked(&done, &result, &broken)) return;
  }
  if (!broken.ok() && broken_) broken_(broken);
  done(result);
}

bool MessageStream::TakeLocked(Done* done, bool* result, absl::Status* broken) {
  if (unread_.empty()) {
    if (!ended_ && !all_came_) return false;
    *result = false;
  } else {
    const std::string message = std::move(unread_.front().bytes);
    unread_.pop_front();
    *result = reading_->ParseFromString(message);
    if (!*result) {
      *broken = absl::InvalidArgumentError(
          "rpc: a message of a stream does not parse; do both ends have the same .proto?");
    }
    to_grant_ += Weight(message.size());
    if (to_grant_ >= kStreamWindow / 2 && !ended_) {
      outstanding_ -= to_grant_;
      (void)session_->Send(
          {.kind = FrameKind::kWindow, .call = call_, .code = std::exchange(to_grant_, 0)});
      session_->FlushSoon();
    }
  }
  reading_ = nullptr;
  *done = std::exchange(read_, nullptr);
  return true;
}

MessageStream::Ends MessageStream::OnEnd() {
  const std::lock_guard lock(lock_);
  if (std::exchange(ended_, true)) return {};
  session_ = nullptr;
  has_pending_ = false;
  Ends ends = {.write = std::exchange(writing_, nullptr), .read = nullptr};
  // A read that waits has seen all that came.
  if (reading_ != nullptr) ends.read = std::exchange(read_, nullptr);
  reading_ = nullptr;
  return ends;
}

}  // namespace verbena::rpc
