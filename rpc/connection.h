// SPDX-License-Identifier: Apache-2.0
// A server's side of one connection: its session and the calls that run on it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "rpc/driver.h"
#include "rpc/server_context.h"
#include "rpc/session.h"

namespace verbena::rpc {

class Server;
struct Handler;

struct Connection final : SessionUser {
  Connection(Server& its_server, Driver& its_driver) : server(its_server), driver(its_driver) {}

  const char* OnFrame(Session& session, const Frame& frame,
                      std::span<const std::byte> carried) override;
  void OnEnd(Session& session, const absl::Status& why) override;
  void OnQuiet(Session& session) override;
  // Leader: every call whose time is up, or all. When to look again.
  int64_t CancelUntil(int64_t deadline_ns, const absl::Status& why);
  // Null: a call of that number still runs.
  IncomingCall* BeginCall(const Handler& handler, uint32_t id, int64_t deadline_ns);
  void KeepLocked(IncomingCall& ended);
  // The running call of that number, with a part of it that the caller drops; null: it has ended.
  IncomingCall* Hold(uint32_t id);
  const char* NotRead(const Frame& frame);  // for want of memory
  void EndIfIdle();                         // leader, while the server shuts down
  bool Over();                              // it may go

  Server& server;
  Driver& driver;
  std::string peer;
  std::unique_ptr<Session> session;

  std::mutex lock;                                     // before a call's
  absl::flat_hash_map<uint32_t, IncomingCall*> calls;  // by the caller's number
  size_t open_calls = 0;                               // not freed; the connection stays for them
  // Ended, with the memory of their requests: without them a small call costs five allocations.
  std::vector<std::unique_ptr<IncomingCall>> spare;
};

}  // namespace verbena::rpc
