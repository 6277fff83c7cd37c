// SPDX-License-Identifier: Apache-2.0
// The calls of a channel. How it gets its connection is in channel_connect.cc.
#include "rpc/channel.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/envelope.h"

namespace verbena::rpc {
namespace {

using google::protobuf::MessageLite;

constexpr uint32_t kIndexBits = 16;  // of a call's number; above them, how often it was used
constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr absl::Duration kForEver = absl::Hours(24 * 365 * 100);

// How long a server may take to let go of lent memory when the call ended early. It is taken from
// it then, and the connection lost if it was using it.
constexpr int64_t kLeaseGraceNs = 100'000'000;

// 0, no deadline, also for what does not fit the header, 71 minutes: the caller ends that by
// itself.
uint32_t TimeLeftUs(int64_t deadline_ns) {
  if (deadline_ns == kNever) return 0;
  const int64_t left = (deadline_ns - NowNs()) / 1000;
  if (left > std::numeric_limits<uint32_t>::max()) return 0;
  return static_cast<uint32_t>(std::max<int64_t>(left, 1));
}

absl::Status Expired(const Method& method) {
  return absl::DeadlineExceededError(absl::StrCat("rpc: ", method.name, " did not end in time"));
}

}  // namespace

void ClientContext::Cancel() {
  cancelled_.store(true);
  if (Channel* channel = channel_.load(); channel != nullptr) channel->Cancel(*this);
}

// The end of a call that a thread waits for.
struct Channel::Blocked final : CallDone {
  explicit Blocked(Driver& driver) : driver(driver) {}
  void Run(const absl::Status& how) override {
    status = how;
    driver.Done(waiter);
  }
  Driver& driver;
  Waiter waiter;
  absl::Status status;
};

absl::Status Channel::Call(const Method& method, const MessageLite& request, MessageLite* response,
                           ClientContext& context) {
  Blocked blocked(driver_);
  context.attended_ = false;
  context.stream_ = nullptr;
  StartWith(method, request, response, context, blocked);
  driver_.Drive(blocked.waiter);
  return blocked.status;
}

void Channel::Start(const Method& method, const MessageLite& request, MessageLite* response,
                    ClientContext& context, CallDone& done) {
  driver_.Attend();
  context.attended_ = true;
  context.stream_ = nullptr;
  StartWith(method, request, response, context, done);
}

void Channel::StartStream(const Method& method, const MessageLite& request, MessageLite* response,
                          ClientContext& context, MessageStream& stream, CallDone& done) {
  driver_.Attend();
  context.attended_ = true;
  context.stream_ = &stream;
  stream.SetBlocker(
      [this](absl::FunctionRef<void(MessageStream::Done)> begin) { return Await(begin); });
  stream.SetBroken([this, &context](const absl::Status& why) { EndSoon(context, why); });
  StartWith(method, request, response, context, done);
}

bool Channel::Await(absl::FunctionRef<void(MessageStream::Done)> begin) {
  Waiter waiter;
  bool result = false;
  begin([&](bool told) {
    result = told;
    // It may have run at once, on this thread, which then leads nothing.
    driver_.Done(waiter);
  });
  driver_.Drive(waiter);
  return result;
}

void Channel::StartWith(const Method& method, const MessageLite& request, MessageLite* response,
                        ClientContext& context, CallDone& done) {
  absl::Status status;
  Session* flush = nullptr;
  context.method_ = &method;
  context.response_ = response;
  context.done_ = &done;
  context.session_ = nullptr;
  if (!options_.interceptors.empty()) status = Intercept(context);
  const bool forever = context.timeout_ >= kForEver;
  const int64_t deadline = forever ? kNever : NowNs() + absl::ToInt64Nanoseconds(context.timeout_);
  context.deadline_ns_ = deadline;
  if (status.ok()) {
    const std::lock_guard lock(lock_);
    if (status = AdmitLocked(context, request); status.ok()) {
      if (running_ == 1) LookAfterIdlingLocked();
      Session* const session = SessionForLocked(context);
      if (session == nullptr || MayRepeat(context)) context.kept_ = request.SerializeAsString();
      if (session != nullptr) {
        status = SendLocked(context, &request, *session);
        flush = session;
        flush->pins.fetch_add(1);
      } else {
        status = WaitLocked(context);
      }
      if (!status.ok()) RemoveLocked(context);
    }
  }
  // From here on the call may have ended, and the context be gone.
  if (!forever) driver_.TickBy(deadline);
  if (flush != nullptr) {
    flush->FlushSoon();
    flush->pins.fetch_sub(1);
  }
  if (!status.ok()) Finish(context, status);
}

absl::Status Channel::AdmitLocked(ClientContext& context, const MessageLite& request) {
  if (closing_) return absl::CancelledError("rpc: the channel is being closed");
  if (context.cancelled_.load()) return absl::CancelledError("rpc: cancelled by the caller");
  if (request.ByteSizeLong() > kMostMessage) {
    return absl::ResourceExhaustedError("rpc: a request of more than 2 GiB");
  }
  if (free_.empty()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "rpc: ", running_, " calls are running on this channel; raise max_calls or wait"));
  }
  ++counters_.calls;
  ++running_;
  EnterLocked(context);
  return absl::OkStatus();
}

void Channel::EnterLocked(ClientContext& call) {
  call.id_ = free_.front();
  free_.pop_front();
  calls_[call.id_ & kIndexMask] = &call;
  call.channel_.store(this);
}

// `request`: null for one that was kept.
absl::Status Channel::SendLocked(ClientContext& call, const MessageLite* request,
                                 Session& session) {
  if (!call.leases_.empty() && call.leased_on_ != session.number) {
    return absl::UnavailableError("rpc: the connection that memory was lent on is gone");
  }
  const std::string head = EncodeHead(call.metadata_);
  const size_t body = request == nullptr ? call.kept_.size() : request->ByteSizeLong();
  const Frame frame = {.kind = FrameKind::kRequest,
                       .call = call.id_,
                       .method = call.method_->id,
                       .timeout_us = TimeLeftUs(call.deadline_ns_),
                       .head = static_cast<uint32_t>(head.size()),
                       .body = static_cast<uint32_t>(body)};

  ++call.attempts_;
  call.session_ = &session;
  if (call.intercepted_ != nullptr) call.intercepted_->sent_bytes = body;
  if (!call.internal_) ++session.calls;
  absl::Status sent = session.Send(frame, [&](std::span<std::byte> out) {
    std::memcpy(out.data(), head.data(), head.size());
    auto* at = reinterpret_cast<uint8_t*>(out.data() + head.size());
    if (request == nullptr) {
      std::memcpy(at, call.kept_.data(), call.kept_.size());
    } else {
      request->SerializeWithCachedSizesToArray(at);
    }
  });
  if (sent.ok() && call.stream_ != nullptr) {
    MessageStream::Done written = call.stream_->Attach(session, call.id_);
    // Not under the lock: what follows may be the next call.
    if (written) driver_.Post([written] { written(true); });
  }
  return sent;
}

// Once more is as good as once, and nothing of it is bound to this connection.
bool Channel::MayRepeat(const ClientContext& call) {
  return call.method_->idempotent && call.leases_.empty() && call.stream_ == nullptr;
}

ClientContext* Channel::FindLocked(uint32_t id) {
  const uint32_t index = id & kIndexMask;
  if (index >= calls_.size() || calls_[index] == nullptr || calls_[index]->id_ != id)
    return nullptr;
  return calls_[index];
}

void Channel::RemoveLocked(ClientContext& call) {
  calls_[call.id_ & kIndexMask] = nullptr;
  free_.push_back(call.id_ + (1u << kIndexBits));
  if (call.internal_) return;
  if (call.session_ != nullptr) --call.session_->calls;
  if (--running_ == 0) idle_since_ns_ = NowNs();
}

// It is in no table any more; whoever took it out calls this, without the lock.
void Channel::Finish(ClientContext& call, const absl::Status& status) {
  call.leases_.clear();  // from here on the server cannot reach the memory
  MessageStream::Ends ends;
  if (call.stream_ != nullptr) ends = call.stream_->OnEnd();
  call.channel_.store(nullptr);
  if (call.intercepted_ != nullptr) TellInterceptors(call, status);
  const bool attended = call.attended_;
  call.done_->Run(status);  // the context may be gone
  // A coroutine that goes on here may ask for that status.
  ends.Run();
  if (attended) driver_.Unattend();
}

void Channel::Cancel(ClientContext& call) {
  EndSoon(call, absl::CancelledError("rpc: cancelled by the caller"));
}

void Channel::EndSoon(ClientContext& call, const absl::Status& why) {
  driver_.Post([this, id = call.id_, why] {
    ClientContext* found = nullptr;
    {
      const std::lock_guard lock(lock_);
      found = FindLocked(id);
    }
    if (found != nullptr) EndEarly(*found, why, false);
  });
}

void Channel::LetGo(ClientContext& call) {
  if (!driver_.OnLeader()) return call.Cancel();
  const auto found = std::ranges::find_if(over_, [&](const auto& it) { return it.first == &call; });
  if (found != over_.end()) {
    const absl::Status status = found->second;
    over_.erase(found);
    return Finish(call, status);
  }
  {
    const std::lock_guard lock(lock_);
    if (FindLocked(call.id_) != &call) return;  // it has ended
  }
  EndEarly(call, absl::CancelledError("rpc: cancelled by the caller"), true);
}

// Leader. Nobody waits for the answer any more; but while memory is lent the server is first asked
// to let go of it, unless this has to be the end `at_once`.
void Channel::EndEarly(ClientContext& call, const absl::Status& status, bool at_once) {
  {
    const std::lock_guard lock(lock_);
    Session* session = call.session_;
    const bool asked = session != nullptr && !session->ended();
    if (asked) {
      (void)session->Send({.kind = FrameKind::kCancel, .call = call.id_});
      session->FlushSoon();
    }
    if (asked && !at_once && !call.leases_.empty() && call.ending_.ok()) {
      call.ending_ = status;
      call.deadline_ns_ = NowNs() + kLeaseGraceNs;
      driver_.TickBy(call.deadline_ns_);
      return;
    }
    std::erase(waiting_, call.id_);
    RemoveLocked(call);
  }
  Finish(call, call.ending_.ok() ? status : absl::Status(call.ending_));
  EndIdle();
}

// Leader: whose time has come? Says when to look again.
int64_t Channel::Tick(int64_t now) {
  constexpr int64_t kResolutionNs = 1'000'000;
  std::vector<uint32_t> over;
  int64_t next = std::numeric_limits<int64_t>::max();
  {
    const std::lock_guard lock(lock_);
    for (ClientContext* call : calls_) {
      if (call == nullptr) continue;
      if (call->deadline_ns_ <= now) {
        over.push_back(call->id_);
      } else {
        next = std::min(next, call->deadline_ns_);
      }
    }
  }
  for (const uint32_t id : over) {
    ClientContext* call = nullptr;
    {
      const std::lock_guard lock(lock_);
      call = FindLocked(id);
    }
    // Whoever was told of an end may have let go of another.
    if (call != nullptr) EndEarly(*call, Expired(*call->method_), false);
  }
  return std::max(next, now + kResolutionNs);
}

const char* Channel::OnFrame(Session& session, const Frame& frame,
                             std::span<const std::byte> carried) {
  switch (frame.kind) {
    case FrameKind::kResponse:
      return OnResponse(session, frame, carried);
    case FrameKind::kGoAway: {
      {
        const std::lock_guard lock(lock_);
        session.goes_away = true;
        if (Target* target = TargetOfLocked(session); target != nullptr) LostLocked(*target);
      }
      EndIdle();
      return nullptr;
    }
    case FrameKind::kMessage:
    case FrameKind::kWindow:
      return OnStream(session, frame, carried);
    default:
      return "a frame that only a caller may send";
  }
}

const char* Channel::OnStream(Session& session, const Frame& frame,
                              std::span<const std::byte> carried) {
  ClientContext* call = nullptr;
  {
    const std::lock_guard lock(lock_);
    call = FindLocked(frame.call);
  }
  // Of a call that ended early.
  if (call == nullptr || call->session_ != &session) return nullptr;
  if (call->stream_ == nullptr) return "a message of a stream that is none";
  if (frame.kind == FrameKind::kMessage) return call->stream_->OnMessage(frame.last, carried);
  return call->stream_->OnWindow(frame.code);
}

const char* Channel::OnResponse(Session& session, const Frame& frame,
                                std::span<const std::byte> carried) {
  ClientContext* call = nullptr;
  bool leaving = false;
  {
    const std::lock_guard lock(lock_);
    call = FindLocked(frame.call);
    // Of a call that ended early.
    if (call == nullptr || call->session_ != &session) return nullptr;
    if (session.goes_away && frame.code == static_cast<uint32_t>(absl::StatusCode::kUnavailable) &&
        RepeatLocked(*call)) {
      TryLocked();
      return nullptr;
    }
    RemoveLocked(*call);
    leaving = !old_.empty();
  }
  absl::Status status;
  if (frame.head > 0 || frame.code != 0) {
    const char* wrong =
        DecodeEnd(carried.first(frame.head), frame.code, &status, &call->server_metadata_);
    if (wrong != nullptr)
      status = absl::InternalError(absl::StrCat("rpc: the server sent ", wrong));
  }
  if (!call->ending_.ok()) status = call->ending_;
  const auto body = carried.subspan(frame.head);
  if (call->intercepted_ != nullptr) call->intercepted_->received_bytes = body.size();
  if (status.ok() && !call->response_->ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    status =
        absl::InternalError(absl::StrCat("rpc: the response of ", call->method_->name,
                                         " does not parse; do both ends have the same .proto?"));
  }
  Finish(*call, status);
  if (leaving) EndIdle();
  return nullptr;
}

// Leader. A connection that the server wants to be rid of goes with its last call.
void Channel::EndIdle() {
  std::vector<Session*> idle;
  {
    const std::lock_guard lock(lock_);
    for (const auto& session : old_) {
      if (session->calls == 0 && !session->ended()) idle.push_back(session.get());
    }
  }
  for (Session* session : idle) session->End(absl::UnavailableError("rpc: the server goes away"));
}

// Leader. What was sent may have run; only what may run twice is tried again.
void Channel::OnEnd(Session& session, const absl::Status& why) {
  Over over;
  {
    const std::lock_guard lock(lock_);
    if (Target* target = TargetOfLocked(session); target != nullptr) LostLocked(*target);
    for (ClientContext* call : calls_) {
      if (call == nullptr || call->session_ != &session) continue;
      if (RepeatLocked(*call)) continue;
      RemoveLocked(*call);
      over.emplace_back(
          call, !call->ending_.ok()
                    ? absl::Status(call->ending_)
                    : absl::UnavailableError(absl::StrCat(
                          "rpc: connection lost while ", call->method_->name,
                          " was running, which may or may not have been done: ", why.message())));
    }
    for (auto& each : SendWaitingLocked()) over.push_back(std::move(each));
    if (!waiting_.empty() && !closing_) TryLocked();
  }
  FinishAll(std::move(over));
}

// On another connection, or the next one; false: it may not be, or was often enough.
bool Channel::RepeatLocked(ClientContext& call) {
  if (!MayRepeat(call) || call.attempts_ >= options_.max_attempts || closing_ ||
      !call.ending_.ok()) {
    return false;
  }
  ++counters_.retries;
  --call.session_->calls;
  call.session_ = nullptr;
  Session* const other = SessionForLocked(call);
  if (other != nullptr) {
    if (SendLocked(call, nullptr, *other).ok()) {
      other->FlushSoon();
      return true;
    }
    --std::exchange(call.session_, nullptr)->calls;
    if (!other->ended()) return false;
  }
  waiting_.push_back(call.id_);
  return true;
}

// Leader. Whoever is told may let go of another one of these.
void Channel::FinishAll(Over over) {
  std::ranges::move(over, std::back_inserter(over_));
  while (!over_.empty()) {
    const auto [call, status] = std::move(over_.front());
    over_.pop_front();
    Finish(*call, status);
  }
}

// Each as far as one that refuses the call.
absl::Status Channel::Intercept(ClientContext& call) {
  call.intercepted_ = std::make_unique<Interception>(
      Interception{.at_end = {}, .begun_ns = NowNs(), .peer = &name_});
  for (const ClientInterceptor& interceptor : options_.interceptors) {
    auto at_end = interceptor(call);
    if (!at_end.ok()) return at_end.status();
    if (*at_end) call.intercepted_->at_end.push_back(*std::move(at_end));
  }
  return absl::OkStatus();
}

void Channel::TellInterceptors(ClientContext& call, const absl::Status& status) {
  Interception& its = *call.intercepted_;
  if (call.stream_ != nullptr) {
    its.sent_bytes += call.stream_->sent_bytes();
    its.received_bytes += call.stream_->received_bytes();
  }
  RunAtEnd(std::move(its.at_end), {.status = status,
                                   .sent_bytes = its.sent_bytes,
                                   .received_bytes = its.received_bytes,
                                   .time = absl::Nanoseconds(NowNs() - its.begun_ns)});
}

}  // namespace verbena::rpc
