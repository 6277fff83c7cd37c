// SPDX-License-Identifier: Apache-2.0
// A server, as a client sees it: one connection that any number of callers share, made at the first
// call and again, with growing pauses, when it was lost. Any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "proto/bulk.pb.h"
#include "rpc/client_context.h"
#include "rpc/driver.h"
#include "rpc/method.h"
#include "rpc/session.h"
#include "rpc/stream.h"
#include "transport/context.h"

namespace verbena::rpc {

struct ChannelOptions {
  ContextOptions context = {};  // which devices
  Wait wait = Wait::kAdaptive;
  absl::Duration spin = absl::Microseconds(50);
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration first_pause = absl::Milliseconds(50);  // before connecting again; jittered
  absl::Duration longest_pause = absl::Seconds(5);
  uint32_t max_message = 64u << 20;  // bytes of a response
  uint32_t max_calls = 16384;        // at once; more are RESOURCE_EXHAUSTED
  int max_attempts = 4;              // of idempotent methods
};

enum class BulkAccess : uint8_t { kRead, kWrite };  // what the server may do

struct ChannelCounters {
  uint64_t calls = 0;
  uint64_t connections = 0;
  uint64_t retries = 0;
  SessionCounters session = {};  // of today's connection
};

class Channel final : SessionUser {
 public:
  // "host:port". Connects at the first call. InvalidArgument: options that cannot be.
  static absl::StatusOr<std::unique_ptr<Channel>> Open(const std::string& address,
                                                       const ChannelOptions& options = {});
  // Calls that still run end with CANCELLED first.
  ~Channel();

  // The callback core. `response` and `context` stay until `done` ran; `request` may go at once.
  void Start(const Method& method, const google::protobuf::MessageLite& request,
             google::protobuf::MessageLite* response, ClientContext& context, CallDone& done);
  // A call of many messages, of which `stream` is this end. It stays until `done` ran.
  void StartStream(const Method& method, const google::protobuf::MessageLite& request,
                   google::protobuf::MessageLite* response, ClientContext& context,
                   MessageStream& stream, CallDone& done);
  // Blocks. This thread moves the channel meanwhile, if no other does.
  absl::Status Call(const Method& method, const google::protobuf::MessageLite& request,
                    google::protobuf::MessageLite* response, ClientContext& context);

  // Blocks until the Done that `begin` is given has run; what that was told.
  bool Await(absl::FunctionRef<void(MessageStream::Done)> begin);

  // Lends memory to the server until the call of `context` has ended, however it ends: put the
  // handle into the request. Connects first if need be. The memory is not copied; the caller leaves
  // it alone meanwhile.
  absl::StatusOr<BulkHandle> Lend(ClientContext& context, std::span<std::byte> memory,
                                  BulkAccess access);

  // Unavailable: why there is no connection. DeadlineExceeded.
  absl::Status WaitUntilConnected(absl::Duration timeout);
  ChannelCounters counters() const;

 private:
  friend class ClientContext;
  struct Blocked;
  Channel(const std::string& address, const ChannelOptions& options, Context context);

  const char* OnFrame(Session& session, const Frame& frame,
                      std::span<const std::byte> carried) override;
  void OnEnd(Session& session, const absl::Status& why) override;
  void OnQuiet(Session& session) override;

  void StartWith(const Method& method, const google::protobuf::MessageLite& request,
                 google::protobuf::MessageLite* response, ClientContext& context, CallDone& done);
  absl::Status AdmitLocked(ClientContext& context, const google::protobuf::MessageLite& request);
  void LookAfterIdlingLocked();
  absl::Status SendLocked(ClientContext& call, const google::protobuf::MessageLite* request);
  ClientContext* FindLocked(uint32_t id);
  void RemoveLocked(ClientContext& call);
  void Finish(ClientContext& call, const absl::Status& status);
  void EndEarly(ClientContext& call, const absl::Status& status);
  void Cancel(ClientContext& call);
  void EndSoon(ClientContext& call, const absl::Status& why);
  static bool MayRepeat(const ClientContext& call);
  const char* OnStream(Session& session, const Frame& frame, std::span<const std::byte> carried);
  const char* OnResponse(Session& session, const Frame& frame, std::span<const std::byte> carried);
  void EndIdle();
  int64_t Tick(int64_t now);
  void NotConnected(const absl::Status& why);
  void Connected(std::unique_ptr<Session> session);

  void EndAll();
  void Reap();
  absl::Status WaitLocked(ClientContext& call);
  void ConnectLocked();
  void RunConnector(absl::Duration pause);
  absl::StatusOr<std::unique_ptr<Session>> ConnectOnce();

  const std::string address_;
  const ChannelOptions options_;
  Context context_;
  Driver driver_;

  mutable std::mutex lock_;            // before a session's
  std::vector<ClientContext*> calls_;  // by the low bits of their number
  // Numbers, for their next use: the one that was not used for longest first, as a server may still
  // have to do with the last ones.
  std::deque<uint32_t> free_;
  std::deque<uint32_t> waiting_;  // for a connection
  size_t running_ = 0;
  int64_t idle_since_ns_ = 0;
  std::unique_ptr<Session> session_;           // null: none, or it is being made
  std::vector<std::unique_ptr<Session>> old_;  // no new calls; some may be running
  uint64_t connections_ = 0;
  bool connecting_ = false;
  bool closing_ = false;
  int failures_ = 0;           // in a row
  int64_t not_before_ns_ = 0;  // no attempt until then
  absl::Status last_failure_ = {};
  std::condition_variable changed_;  // connected, or not
  std::thread connector_;
  Waiter* closed_ = nullptr;  // leader: who waits for the last connection to be gone
  ChannelCounters counters_;
};

}  // namespace verbena::rpc
