// SPDX-License-Identifier: Apache-2.0
#include "rpc/server_context.h"

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/connection.h"
#include "rpc/server.h"

namespace verbena::rpc {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

}  // namespace

ServerContext::~ServerContext() = default;

const std::string& ServerContext::peer() const { return connection_->peer; }

absl::Duration ServerContext::time_left() const {
  if (deadline_ns_ == kNever) return absl::InfiniteDuration();
  return std::max(absl::Nanoseconds(deadline_ns_ - NowNs()), absl::ZeroDuration());
}

absl::Status ServerContext::Check(const BulkHandle& handle, uint64_t offset, size_t bytes,
                                  bool writes) const {
  if (offset > handle.length() || bytes > handle.length() - offset) {
    return absl::OutOfRangeError(absl::StrCat("rpc: bytes ", offset, " to ", offset + bytes, " of ",
                                              handle.length(), " that were lent"));
  }
  if (writes && !handle.writable()) {
    return absl::PermissionDeniedError("rpc: the caller lent this memory to be read, not written");
  }
  return absl::OkStatus();
}

void ServerContext::Move(Opcode opcode, const BulkHandle& handle, uint64_t offset,
                         std::span<std::byte> bytes, bool behind, std::unique_ptr<Kept> kept,
                         Done done) {
  absl::Status status = Check(handle, offset, bytes.size(), opcode == Opcode::kWrite);
  if (!status.ok() || bytes.empty()) return done(status);
  auto moving = std::make_unique<Moving>();
  moving->done = done;
  moving->kept = std::move(kept);
  Transfer& transfer = moving->transfer;
  transfer.opcode = opcode;
  transfer.remote = {
      .address = handle.address() + offset, .length = bytes.size(), .key = handle.key()};
  transfer.local = bytes;
  transfer.done = [this, its = moving.get()](const absl::Status& how) {
    Moved(std::unique_ptr<Moving>(its), how);
  };
  bool told = false;
  {
    const std::lock_guard lock(lock_);  // Moved() waits for it
    status = stopped_;
    bool posted = false;
    if (status.ok()) status = connection_->session->Begin(transfer, &posted);
    if (status.ok()) {
      ++parts_;
      transfers_.push_back(&transfer);
      told = behind && posted;
      if (told) moving->done = nullptr;
      (void)moving.release();
    }
  }
  if (!status.ok() || told) done(status);
}

// Leader.
void ServerContext::Moved(std::unique_ptr<Moving> moved, const absl::Status& how) {
  bool answer = false;
  {
    const std::lock_guard lock(lock_);
    std::erase(transfers_, &moved->transfer);
    answer = !stopped_.ok() && transfers_.empty();
  }
  auto* call = static_cast<IncomingCall*>(this);
  if (answer) call->Answer(stopped_, nullptr);
  moved->kept = nullptr;
  if (moved->done) moved->done(how);
  moved = nullptr;
  call->DropPart();
}

void ServerContext::Pull(const BulkHandle& from, uint64_t offset, std::span<std::byte> bytes,
                         Done done) {
  Move(Opcode::kRead, from, offset, bytes, false, nullptr, std::move(done));
}

namespace {

// A write only reads its source.
std::span<std::byte> Source(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

void ServerContext::Push(const BulkHandle& to, uint64_t offset, std::span<const std::byte> bytes,
                         Done done) {
  Move(Opcode::kWrite, to, offset, Source(bytes), false, nullptr, std::move(done));
}

void ServerContext::PushBehind(const BulkHandle& to, uint64_t offset,
                               std::span<const std::byte> bytes, std::unique_ptr<Kept> kept,
                               Done done) {
  Move(Opcode::kWrite, to, offset, Source(bytes), true, std::move(kept), std::move(done));
}

absl::Status ServerContext::Block(absl::FunctionRef<void(Done)> begin) {
  if (connection_->driver.OnLeader()) {
    return absl::FailedPreconditionError(
        "rpc: an inline handler may not block; pass a callback, or set handler_threads");
  }
  std::mutex lock;
  std::condition_variable ended;
  bool done = false;
  absl::Status status;
  begin([&](const absl::Status& how) {
    const std::lock_guard guard(lock);
    status = how;
    done = true;
    ended.notify_one();
  });
  std::unique_lock waits(lock);
  ended.wait(waits, [&] { return done; });
  return status;
}

absl::Status ServerContext::Pull(const BulkHandle& from, uint64_t offset,
                                 std::span<std::byte> bytes) {
  return Block([&](Done done) { Pull(from, offset, bytes, std::move(done)); });
}

absl::Status ServerContext::Push(const BulkHandle& to, uint64_t offset,
                                 std::span<const std::byte> bytes) {
  return Block([&](Done done) { Push(to, offset, bytes, std::move(done)); });
}

void ServerContext::Attach(MessageStream& stream) {
  stream.SetBlocker([this](absl::FunctionRef<void(MessageStream::Done)> begin) {
    bool told = false;
    const absl::Status status = Block([&](const Done& done) {
      begin([&told, done](bool result) {
        told = result;
        done(absl::OkStatus());
      });
    });
    return status.ok() && told;
  });
  stream.SetBroken([this](const absl::Status& why) {
    {
      const std::lock_guard lock(lock_);
      ++parts_;
    }
    connection_->driver.Post([call = static_cast<IncomingCall*>(this), why] {
      call->Cancel(why);
      call->DropPart();
    });
  });
  stream.SetBudget(&connection_->server.memory_);
  (void)stream.Attach(*connection_->session, id_);  // nobody has written yet
}

void IncomingCall::Finish(const absl::Status& status,
                          const google::protobuf::MessageLite* response) {
  Answer(status, response);
  DropPart();
}

void IncomingCall::Answer(const absl::Status& status,
                          const google::protobuf::MessageLite* response) {
  if (answered_.exchange(true)) return;
  {
    const std::lock_guard lock(connection_->lock);
    connection_->calls.erase(id_);
  }
  if (stream() != nullptr) stream()->OnEnd().Run();
  Metadata metadata;
  {
    const std::lock_guard lock(lock_);  // a handler that does not know yet may be adding to it
    metadata = std::move(answer_metadata_);
  }
  Session& session = *connection_->session;
  const bool has_body = status.ok() && response != nullptr;
  const size_t body = has_body ? response->ByteSizeLong() : 0;
  if (body > kMostMessage) {
    const auto too_long = absl::ResourceExhaustedError("rpc: a response of more than 2 GiB");
    TellInterceptors(too_long, 0);
    return AnswerFailed(too_long);
  }
  const std::string head = EncodeEnd(status, metadata);
  const Frame frame = {.kind = FrameKind::kResponse,
                       .call = id_,
                       .code = static_cast<uint32_t>(status.code()),
                       .head = static_cast<uint32_t>(head.size()),
                       .body = static_cast<uint32_t>(body)};
  const absl::Status sent = session.Send(frame, [&](std::span<std::byte> out) {
    std::memcpy(out.data(), head.data(), head.size());
    if (has_body) {
      response->SerializeWithCachedSizesToArray(
          reinterpret_cast<uint8_t*>(out.data() + head.size()));
    }
  });
  TellInterceptors(sent.ok() ? status : sent, body);
  if (!sent.ok()) return AnswerFailed(sent);
  session.FlushSoon();
}

// One that runs when the call has ended already is told so at once.
void IncomingCall::AddAtEnd(AtEnd at_end) {
  {
    const std::lock_guard lock(lock_);
    if (!intercepted_->ended.has_value()) return intercepted_->at_end.push_back(std::move(at_end));
  }
  at_end(Outcome(*intercepted_->ended));
}

void IncomingCall::TellInterceptors(const absl::Status& how, uint64_t sent_bytes) {
  if (intercepted_ == nullptr) return;
  std::vector<AtEnd> at_end;
  {
    const std::lock_guard lock(lock_);
    if (intercepted_->ended.has_value()) return;
    intercepted_->ended = how;
    intercepted_->sent_bytes = sent_bytes;
    at_end.swap(intercepted_->at_end);
  }
  RunAtEnd(std::move(at_end), Outcome(how));
}

CallOutcome IncomingCall::Outcome(const absl::Status& how) {
  MessageStream* const messages = stream();
  const Interception& its = *intercepted_;
  return {
      .status = how,
      .sent_bytes = its.sent_bytes + (messages == nullptr ? 0 : messages->sent_bytes()),
      .received_bytes = its.received_bytes + (messages == nullptr ? 0 : messages->received_bytes()),
      .time = absl::Nanoseconds(NowNs() - its.begun_ns)};
}

// The caller must hear of it all the same.
void IncomingCall::AnswerFailed(const absl::Status& why) {
  Session& session = *connection_->session;
  const std::string end = EncodeEnd(why, {});
  (void)session.Send(
      {.kind = FrameKind::kResponse,
       .call = id_,
       .code = static_cast<uint32_t>(why.code()),
       .head = static_cast<uint32_t>(end.size())},
      [&](std::span<std::byte> out) { std::memcpy(out.data(), end.data(), end.size()); });
  session.FlushSoon();
}

// The handler is told by cancelled(); the caller gets its answer as soon as nothing of this call
// touches the memory that it lent.
void IncomingCall::Cancel(const absl::Status& why) {
  cancelled_.store(true);
  std::vector<Transfer*> running;
  {
    const std::lock_guard lock(lock_);
    if (stopped_.ok()) stopped_ = why;
    running = transfers_;
  }
  if (running.empty()) Answer(why, nullptr);
  for (Transfer* transfer : running) connection_->session->Abandon(*transfer, why);
}

void IncomingCall::DropPart() {
  if (parts_.fetch_sub(1) > 1) return;
  Connection& connection = *connection_;
  Server& server = connection.server;
  IncomingCall* again = nullptr;
  if (reusable_) {
    again = this;
    Renew();
  } else {
    delete this;
  }
  server.running_.fetch_sub(1);
  // The server stays for its connections, and this one until it has no more open calls.
  const std::lock_guard lock(connection.lock);
  if (again != nullptr) connection.KeepLocked(*again);
  if (--connection.open_calls == 0 && connection.session->ended()) {
    server.ReapSoon(connection.driver);
  }
}

void IncomingCall::Renew() {
  ClearRequest();
  metadata_.clear();
  answer_metadata_.clear();
  cancelled_.store(false, std::memory_order_relaxed);
  answered_.store(false, std::memory_order_relaxed);
  stopped_ = absl::OkStatus();
  wrong_ = nullptr;
  share_ = {};
  intercepted_.reset();
  parts_.store(1, std::memory_order_relaxed);
}

}  // namespace verbena::rpc
