// SPDX-License-Identifier: Apache-2.0
// What a generated client's methods are made of: the two faces over Channel's callback core.
#pragma once

#include <coroutine>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/channel.h"
#include "rpc/task.h"

namespace verbena::rpc {

template <typename Response>
absl::StatusOr<Response> CallAndWait(Channel& channel, const Method& method,
                                     const google::protobuf::MessageLite& request,
                                     ClientContext& context) {
  Response response;
  if (auto status = channel.Call(method, request, &response, context); !status.ok()) return status;
  return response;
}

template <typename Response>
using Callback = std::function<void(absl::StatusOr<Response>)>;

// `done` runs on the thread that moves the channel: it is not to block.
template <typename Response>
void CallThen(Channel& channel, const Method& method, const google::protobuf::MessageLite& request,
              ClientContext& context, Callback<Response> done) {
  struct Pending final : CallDone {
    void Run(const absl::Status& status) override {
      const std::unique_ptr<Pending> self(this);
      if (status.ok()) {
        done(std::move(response));
      } else {
        done(status);
      }
    }
    Response response;
    Callback<Response> done;
  };
  auto pending = std::make_unique<Pending>();
  pending->done = std::move(done);
  Pending& started = *pending.release();
  channel.Start(method, request, &started.response, context, started);
}

// co_await it. The coroutine goes on on the thread that moves the channel.
template <typename Response>
class CallAwaiter final : CallDone {
 public:
  CallAwaiter(Channel& channel, const Method& method, const google::protobuf::MessageLite& request,
              ClientContext& context)
      : channel_(channel), method_(method), request_(request), context_(context) {}

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> caller) {
    channel_.Start(method_, request_, &response_, context_, *this);
    return suspension_.Suspend(caller);
  }
  absl::StatusOr<Response> await_resume() {
    if (!status_.ok()) return status_;
    return std::move(response_);
  }

 private:
  void Run(const absl::Status& status) override {
    status_ = status;
    suspension_.Resume();
  }
  Channel& channel_;
  const Method& method_;
  const google::protobuf::MessageLite& request_;
  ClientContext& context_;
  Response response_;
  absl::Status status_;
  Suspension suspension_;
};

// co_await an operation of a stream: bool.
class StreamAwaiter {
 public:
  using Begin = std::function<void(MessageStream::Done)>;
  explicit StreamAwaiter(Begin begin) : begin_(std::move(begin)) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> caller) {
    begin_([this](bool told) {
      told_ = told;
      suspension_.Resume();
    });
    return suspension_.Suspend(caller);
  }
  bool await_resume() const noexcept { return told_; }

 private:
  Begin begin_;
  bool told_ = false;
  Suspension suspension_;
};

// The caller's end of a call of many messages; running since it was made. One reader and one writer
// at a time. Destroyed before its end it cancels the call.
template <typename Request, typename Response>
class ClientStream final : CallDone {
 public:
  ClientStream(Channel& channel, const Method& method, const google::protobuf::MessageLite& request,
               ClientContext& context)
      : channel_(channel), context_(context) {
    channel_.StartStream(method, request, &response_, context_, stream_, *this);
  }
  ~ClientStream() {
    channel_.LetGo(context_);
    (void)Finish();
  }
  ClientStream(const ClientStream&) = delete;
  ClientStream& operator=(const ClientStream&) = delete;

  // Blocks while the server does not read. False: the call has ended, Finish() says how.
  bool Write(const Request& request) { return stream_.WriteAndWait(request); }
  void WritesDone() { stream_.WritesDone(); }
  // False: that was all, Finish() says how it ended.
  bool Read(Response* response) { return stream_.ReadAndWait(response); }
  // Waits for the end. The answer, of a method that has one behind the messages.
  absl::StatusOr<Response> Finish() {
    channel_.Await([this](MessageStream::Done done) { OnEnd(std::move(done)); });
    if (!status_.ok()) return status_;
    return response_;
  }

  StreamAwaiter CoWrite(const Request& request) {
    return StreamAwaiter([this, &request](auto done) { stream_.Write(request, std::move(done)); });
  }
  StreamAwaiter CoRead(Response* response) {
    return StreamAwaiter([this, response](auto done) { stream_.Read(response, std::move(done)); });
  }

 private:
  void Run(const absl::Status& status) override {
    MessageStream::Done waits;
    {
      const std::lock_guard lock(lock_);
      status_ = status;
      ended_ = true;
      waits = std::exchange(waits_, nullptr);
    }
    if (waits) waits(true);
  }
  void OnEnd(MessageStream::Done done) {
    {
      const std::lock_guard lock(lock_);
      if (!ended_) {
        waits_ = std::move(done);
        return;
      }
    }
    done(true);
  }

  Channel& channel_;
  ClientContext& context_;
  MessageStream stream_;
  Response response_;
  std::mutex lock_;
  bool ended_ = false;
  absl::Status status_;
  MessageStream::Done waits_;
};

}  // namespace verbena::rpc
