// SPDX-License-Identifier: Apache-2.0
// One address that a channel's name stands for, with its connection or the attempts at one. All of
// it under the channel's lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "proto/health.pb.h"
#include "rpc/client_context.h"
#include "rpc/session.h"
#include "rpc/stream.h"

namespace verbena::rpc {

struct HealthWatch;

struct Target {
  explicit Target(std::string its_address) : address(std::move(its_address)) {}
  bool usable() const;

  const std::string address;
  std::unique_ptr<Session> session;  // null: none, or it is being made
  HealthWatch* health = nullptr;     // of that session; null: nobody asks
  bool connecting = false;
  bool leaving = false;       // the name does not stand for it any more, but `connector` runs
  int failures = 0;           // in a row
  int64_t not_before_ns = 0;  // no attempt until then
  std::thread connector;      // posts its outcome as its last act
};

// The call by which a channel watches the health of one server, as long as the connection.
struct HealthWatch final : CallDone {
  void Run(const absl::Status& status) override { ended(status); }

  std::function<void(const absl::Status&)> ended;
  Target* target = nullptr;  // null: it does not have this connection any more
  HealthResponse::State state = HealthResponse::UNKNOWN;
  bool over = false;
  bool attended = false;  // nobody calls, so the channel's own thread has to look for a change
  ClientContext context;
  MessageStream stream;
  HealthResponse next;    // of the stream
  HealthResponse answer;  // behind it; says nothing
};

inline bool Target::usable() const {
  return session != nullptr && !session->ended() &&
         (health == nullptr || health->state == HealthResponse::SERVING);
}

}  // namespace verbena::rpc
