// SPDX-License-Identifier: Apache-2.0
#include "rpc/connection.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rpc/server.h"

namespace verbena::rpc {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr size_t kMostSpare = 16;  // calls, of all methods

void Refuse(Session& session, const Frame& request, const absl::Status& why) {
  const std::string end = EncodeEnd(why, {});
  (void)session.Send(
      {.kind = FrameKind::kResponse,
       .call = request.call,
       .code = static_cast<uint32_t>(why.code()),
       .head = static_cast<uint32_t>(end.size())},
      [&](std::span<std::byte> out) { std::memcpy(out.data(), end.data(), end.size()); });
  session.FlushSoon();
}

}  // namespace

const char* Connection::OnFrame(Session&, const Frame& frame, std::span<const std::byte> carried) {
  if (carried.size() < frame.carried()) return NotRead(frame);
  switch (frame.kind) {
    case FrameKind::kRequest:
      return server.OnRequest(*this, frame, carried);
    case FrameKind::kCancel: {
      if (session->DropWaiting(frame.call)) return nullptr;
      IncomingCall* call = Hold(frame.call);
      if (call == nullptr) return nullptr;  // it has just been answered
      call->Cancel(absl::CancelledError("rpc: cancelled by the caller"));
      call->DropPart();
      return nullptr;
    }
    case FrameKind::kMessage:
    case FrameKind::kWindow: {
      IncomingCall* call = Hold(frame.call);
      if (call == nullptr) return nullptr;  // it has been answered
      const char* wrong = nullptr;
      if (call->stream() == nullptr) {
        wrong = "a message of a stream that is none";
      } else if (frame.kind == FrameKind::kMessage) {
        wrong = call->stream()->OnMessage(frame.last, carried);
      } else {
        wrong = call->stream()->OnWindow(frame.code);
      }
      call->DropPart();
      return wrong;
    }
    default:
      return "a frame that only a server may send";
  }
}

const char* Connection::NotRead(const Frame& frame) {
  const absl::Status why = absl::ResourceExhaustedError(absl::StrCat(
      "rpc: a message of ", frame.carried(), " bytes, and the server holds ", server.memory_.used(),
      " of ", server.memory_.limit(), " that it may, its max_memory; try later"));
  server.refused_.fetch_add(1);
  if (frame.kind == FrameKind::kRequest) {
    Refuse(*session, frame, why);
  } else if (IncomingCall* call = Hold(frame.call); call != nullptr) {
    call->Cancel(why);
    call->DropPart();
  }
  return nullptr;
}

IncomingCall* Connection::Hold(uint32_t id) {
  const std::lock_guard guard(lock);
  const auto found = calls.find(id);
  if (found == calls.end()) return nullptr;
  const std::lock_guard parts(found->second->lock_);
  ++found->second->parts_;
  return found->second;
}

IncomingCall* Connection::BeginCall(const Handler& handler, uint32_t id, int64_t deadline_ns) {
  const std::lock_guard guard(lock);
  const auto [place, is_new] = calls.try_emplace(id, nullptr);
  if (!is_new) return nullptr;
  const auto ended = std::find_if(spare.rbegin(), spare.rend(),
                                  [&](const auto& it) { return it->method_ == handler.method; });
  IncomingCall* call = nullptr;
  if (ended == spare.rend()) {
    call = handler.make();
    call->connection_ = this;
    call->method_ = handler.method;
  } else {
    call = ended->release();
    std::swap(*ended, spare.back());
    spare.pop_back();
  }
  call->id_ = id;
  call->deadline_ns_ = deadline_ns;
  place->second = call;
  ++open_calls;
  return call;
}

void Connection::KeepLocked(IncomingCall& ended) {
  std::unique_ptr<IncomingCall> call(&ended);
  if (spare.size() < kMostSpare) spare.push_back(std::move(call));
}

// Null, or what is wrong with the frame. Everything else is the call's own status.
const char* Server::OnRequest(Connection& connection, const Frame& frame,
                              std::span<const std::byte> carried) {
  const Handler* handler = nullptr;
  if (auto status = Admit(frame, &handler); !status.ok()) {
    // Before that: who learns from it that the server goes away may try at another.
    if (draining_.load()) (void)connection.session->Send({.kind = FrameKind::kGoAway});
    Refuse(*connection.session, frame, status);
    return nullptr;
  }
  const int64_t deadline =
      frame.timeout_us == 0 ? kNever : NowNs() + int64_t{frame.timeout_us} * 1000;
  IncomingCall* call = connection.BeginCall(*handler, frame.call, deadline);
  if (call == nullptr) {
    running_.fetch_sub(1);
    return "a request with the number of a call that still runs";
  }
  if (deadline != kNever) connection.driver.TickBy(deadline);
  call->reusable_ = call->stream() == nullptr && carried.size() <= kReceiveBytes;
  if (!options_.interceptors.empty()) {
    call->intercepted_ = std::make_unique<Interception>(
        Interception{.at_end = {}, .begun_ns = NowNs(), .received_bytes = frame.body});
  }
  if (frame.by_address) call->share_ = memory_.Count(frame.carried());
  if (frame.head != 0) call->wrong_ = DecodeHead(carried.first(frame.head), &call->metadata_);
  if (call->stream() != nullptr) call->Attach(*call->stream());
  if (call->wrong_ == nullptr && !call->Parse(carried.subspan(frame.head))) {
    call->wrong_ = "a request that does not parse; do both ends have the same .proto?";
  }
  if (options_.handler_threads == 0) {
    Serve(*call);
  } else {
    const std::lock_guard guard(queue_lock_);
    queue_.push_back(call);
    queued_.notify_one();
  }
  return nullptr;
}

// Counts it as running if it may.
absl::Status Server::Admit(const Frame& frame, const Handler** handler) {
  const auto found = handlers_.find(frame.method);
  if (found == handlers_.end()) {
    return absl::UnimplementedError("rpc: this server does not have that method");
  }
  *handler = &found->second;
  if (draining_.load() && !found->second.always)
    return absl::UnavailableError("rpc: the server shuts down");
  // Whoever asks how the server is must hear it from one that is full, too.
  const uint64_t most = uint64_t{options_.max_calls} * (found->second.always ? 2 : 1);
  if (running_.fetch_add(1) >= most) {
    running_.fetch_sub(1);
    refused_.fetch_add(1);
    return absl::ResourceExhaustedError(
        absl::StrCat("rpc: the server runs ", options_.max_calls, " calls, its limit; try later"));
  }
  calls_.fetch_add(1);
  return absl::OkStatus();
}

// Nobody can be answered any more. Transfers end by themselves.
void Connection::OnEnd(Session&, const absl::Status&) {
  std::vector<IncomingCall*> running;
  {
    const std::lock_guard guard(lock);
    for (const auto& [id, call] : calls) {
      const std::lock_guard parts(call->lock_);
      call->cancelled_.store(true);
      call->answered_ = true;
      call->stopped_ = absl::UnavailableError("rpc: the caller is gone");
      ++call->parts_;
      running.push_back(call);
    }
    calls.clear();
  }
  for (IncomingCall* call : running) {
    if (call->stream() != nullptr) call->stream()->OnEnd().Run();
    call->TellInterceptors(absl::CancelledError("rpc: the caller is gone"), 0);
    call->DropPart();
  }
}

void Connection::OnQuiet(Session&) { server.ReapSoon(driver); }

int64_t Connection::CancelUntil(int64_t deadline_ns, const absl::Status& why) {
  int64_t next = kNever;
  std::vector<IncomingCall*> late;
  {
    const std::lock_guard guard(lock);
    for (const auto& [id, call] : calls) {
      if (call->deadline_ns_ > deadline_ns) {
        next = std::min(next, call->deadline_ns_);
        continue;
      }
      ++call->parts_;
      late.push_back(call);
    }
  }
  for (IncomingCall* call : late) {
    call->Cancel(why);
    call->DropPart();
  }
  return next;
}

// A caller that is idle does not hear that the server goes away.
void Connection::EndIfIdle() {
  {
    const std::lock_guard guard(lock);
    if (open_calls > 0) return;
  }
  if (session->AllSent()) session->End(absl::UnavailableError("rpc: the server shuts down"));
}

bool Connection::Over() {
  const std::lock_guard guard(lock);
  return open_calls == 0 && session->quiet() && session->pins.load() == 0;
}

}  // namespace verbena::rpc
