// SPDX-License-Identifier: Apache-2.0
// What a generated service's methods are made of: three faces over IncomingCall.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "rpc/server_context.h"
#include "rpc/task.h"

namespace verbena::rpc {

absl::Status ThrownByHandler(std::exception_ptr thrown);

template <typename Request, typename Response>
class TypedCall : public IncomingCall {
 public:
  bool Parse(std::span<const std::byte> body) final {
    return request.ParseFromArray(body.data(), static_cast<int>(body.size()));
  }
  void ClearRequest() final { request.Clear(); }
  void End(const absl::StatusOr<Response>& result) {
    Finish(result.status(), result.ok() ? &*result : nullptr);
  }
  Request request;
};

// A call in the hands of an asynchronous handler. Finish it on any thread; one that is dropped
// unfinished is INTERNAL.
template <typename Request, typename Response>
class ServerCall {
 public:
  explicit ServerCall(TypedCall<Request, Response>* call) : call_(call) {}
  ServerCall(ServerCall&& other) noexcept : call_(std::exchange(other.call_, nullptr)) {}
  ServerCall& operator=(ServerCall&&) = delete;
  ~ServerCall() {
    if (call_ != nullptr)
      Finish(absl::InternalError("rpc: the handler dropped the call, or threw"));
  }

  const Request& request() const { return call_->request; }
  ServerContext& context() { return *call_; }
  void Finish(const absl::StatusOr<Response>& result) {
    std::exchange(call_, nullptr)->End(result);
  }
  void Finish(const Response& response) {
    std::exchange(call_, nullptr)->Finish(absl::OkStatus(), &response);
  }

 private:
  TypedCall<Request, Response>* call_;
};

// The server's end of a call of many messages, for its handler. One reader and one writer at a
// time.
template <typename Request, typename Response>
class ServerStream {
 public:
  explicit ServerStream(MessageStream& stream) : stream_(stream) {}

  // These block; they are false at once where handlers run inline. False: that was all, or the call
  // has ended: see ServerContext::cancelled().
  bool Read(Request* request) { return stream_.ReadAndWait(request); }
  bool Write(const Response& response) { return stream_.WriteAndWait(response); }
  // co_await these.
  StreamAwaiter CoRead(Request* request) {
    return StreamAwaiter([this, request](auto done) { stream_.Read(request, std::move(done)); });
  }
  StreamAwaiter CoWrite(const Response& response) {
    return StreamAwaiter(
        [this, &response](auto done) { stream_.Write(response, std::move(done)); });
  }

 private:
  MessageStream& stream_;
};

template <typename Request, typename Response>
class TypedStreamCall : public TypedCall<Request, Response> {
 public:
  MessageStream* stream() final { return &messages_; }
  ServerStream<Request, Response> typed{messages_};

 private:
  MessageStream messages_;
};

// What a handler of a stream returns: of one whose answer is a message behind the caller's, that
// message; else a status.
template <typename Response>
absl::StatusOr<Response> ResultOf(absl::StatusOr<Response> result) {
  return result;
}
template <typename Response>
absl::StatusOr<Response> ResultOf(const absl::Status& status) {
  if (!status.ok()) return status;
  return Response();
}

template <typename Request, typename Response, typename Serve>
Handler MakeStreamHandler(const Method& method, Serve serve) {
  struct Call final : TypedStreamCall<Request, Response> {
    explicit Call(const Serve& how) : serve(how) {}
    void Handle() override { serve(*this); }
    Serve serve;
  };
  return {.method = &method, .make = [serve] { return new Call(serve); }};
}

// Serve(ServerContext&, const Request& first, ServerStream&): may block; so only with
// handler_threads.
template <typename Request, typename Response, typename Serve>
Handler BlockingStreamHandler(const Method& method, Serve serve) {
  using Call = TypedStreamCall<Request, Response>;
  return MakeStreamHandler<Request, Response>(method, [serve](Call& call) {
    absl::StatusOr<Response> result = absl::InternalError("rpc: no result");
    try {
      result = ResultOf<Response>(serve(call, call.request, call.typed));
    } catch (...) {
      result = ThrownByHandler(std::current_exception());
    }
    call.End(result);
  });
}

// The same as a coroutine: Task<absl::Status>, or Task<absl::StatusOr<Response>>.
template <typename Request, typename Response, typename Serve>
Handler CoroutineStreamHandler(const Method& method, Serve serve) {
  using Call = TypedStreamCall<Request, Response>;
  return MakeStreamHandler<Request, Response>(method, [serve](Call& call) {
    StartTask(
        serve(call, call.request, call.typed),
        [&call](auto result) { call.End(ResultOf<Response>(std::move(result))); },
        [&call](std::exception_ptr thrown) { call.End(ThrownByHandler(thrown)); });
  });
}

template <typename Request, typename Response, typename Serve>
Handler MakeHandler(const Method& method, Serve serve) {
  struct Call final : TypedCall<Request, Response> {
    explicit Call(const Serve& how) : serve(how) {}
    void Handle() override { serve(*this); }
    Serve serve;
  };
  return {.method = &method, .make = [serve] { return new Call(serve); }};
}

// absl::StatusOr<Response> Serve(ServerContext&, const Request&): may block.
template <typename Request, typename Response, typename Serve>
Handler BlockingHandler(const Method& method, Serve serve) {
  return MakeHandler<Request, Response>(method, [serve](TypedCall<Request, Response>& call) {
    absl::StatusOr<Response> result = absl::InternalError("rpc: no result");
    try {
      result = serve(call, call.request);
    } catch (...) {
      result = ThrownByHandler(std::current_exception());
    }
    call.End(result);
  });
}

// void Serve(ServerCall<Request, Response>): finishes it when it likes.
template <typename Request, typename Response, typename Serve>
Handler AsyncHandler(const Method& method, Serve serve) {
  return MakeHandler<Request, Response>(method, [serve](TypedCall<Request, Response>& call) {
    try {
      serve(ServerCall<Request, Response>(&call));
    } catch (...) {
      // Whoever held the call has let go of it, and so ended it, while the exception went by.
    }
  });
}

// Task<absl::StatusOr<Response>> Serve(ServerContext&, const Request&): a coroutine.
template <typename Request, typename Response, typename Serve>
Handler CoroutineHandler(const Method& method, Serve serve) {
  return MakeHandler<Request, Response>(method, [serve](TypedCall<Request, Response>& call) {
    StartTask(
        serve(call, call.request), [&call](absl::StatusOr<Response> result) { call.End(result); },
        [&call](std::exception_ptr thrown) { call.End(ThrownByHandler(thrown)); });
  });
}

// co_await PullInto(context, handle, 0, bytes): absl::Status.
class BulkAwaiter {
 public:
  using Begin = std::function<void(ServerContext::Done, std::unique_ptr<Kept>)>;
  explicit BulkAwaiter(Begin begin, std::unique_ptr<Kept> kept = nullptr)
      : begin_(std::move(begin)), kept_(std::move(kept)) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> caller) {
    begin_(
        [this](const absl::Status& how) {
          status_ = how;
          suspension_.Resume();
        },
        std::move(kept_));
    return suspension_.Suspend(caller);
  }
  absl::Status await_resume() { return status_; }

 private:
  Begin begin_;
  std::unique_ptr<Kept> kept_;
  absl::Status status_;
  Suspension suspension_;
};
BulkAwaiter PullInto(ServerContext& context, const BulkHandle& from, uint64_t offset,
                     std::span<std::byte> bytes);
BulkAwaiter PushFrom(ServerContext& context, const BulkHandle& to, uint64_t offset,
                     std::span<const std::byte> bytes);
// … which the answer follows, without waiting for it: see ServerContext::PushBehind.
BulkAwaiter PushBehind(ServerContext& context, const BulkHandle& to, uint64_t offset,
                       std::span<const std::byte> bytes, std::unique_ptr<Kept> kept);

}  // namespace verbena::rpc
