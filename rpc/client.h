// SPDX-License-Identifier: Apache-2.0
// What a generated client's methods are made of: the two faces over Channel's callback core.
#pragma once

#include <coroutine>
#include <functional>
#include <memory>
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
  void await_suspend(std::coroutine_handle<> caller) {
    caller_ = caller;
    channel_.Start(method_, request_, &response_, context_, *this);
  }
  absl::StatusOr<Response> await_resume() {
    if (!status_.ok()) return status_;
    return std::move(response_);
  }

 private:
  void Run(const absl::Status& status) override {
    status_ = status;
    caller_.resume();
  }
  Channel& channel_;
  const Method& method_;
  const google::protobuf::MessageLite& request_;
  ClientContext& context_;
  Response response_;
  absl::Status status_;
  std::coroutine_handle<> caller_;
};

}  // namespace verbena::rpc
