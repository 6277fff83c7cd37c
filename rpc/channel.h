// SPDX-License-Identifier: Apache-2.0
// A server, or all that a name stands for, as a client sees it: one connection to each that any
// number of callers share, made again, with growing pauses, when it was lost. Any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "proto/bulk.pb.h"
#include "rpc/client_context.h"
#include "rpc/driver.h"
#include "rpc/interceptor.h"
#include "rpc/method.h"
#include "rpc/resolver.h"
#include "rpc/session.h"
#include "rpc/stream.h"
#include "rpc/target.h"
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
  std::vector<ClientInterceptor> interceptors = {};
  // What stands for a name beyond those of Open: EtcdNames, of rpc/names/etcd.h.
  Names names = nullptr;
  absl::Duration resolve_period = absl::Seconds(30);  // of "dns:"; sooner when a server was lost
  // "package.Service", or "" for the whole: a server that says it does not serve that, by its
  // health service, gets no calls until it does. One that has no health service gets them.
  std::optional<std::string> health = std::nullopt;
};

enum class BulkAccess : uint8_t { kRead, kWrite };  // what the server may do

struct ChannelCounters {
  uint64_t calls = 0;
  uint64_t connections = 0;
  uint64_t retries = 0;
  uint32_t addresses = 0;        // that its name stands for now
  uint32_t usable = 0;           // … to which calls go
  SessionCounters session = {};  // of today's connections together
};

class Channel final : SessionUser {
 public:
  // "host:port": connects at the first call. "a:1,b:2", a list; "dns:host:port", all addresses of a
  // host; what ChannelOptions::names knows: connects to all, and a call goes to where the fewest
  // are running. InvalidArgument: a name or options that cannot be.
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

  // A call that nobody wants any more is cancelled. On the thread that moves the channel it has
  // ended when this returns: to wait for its end there would be for ever.
  void LetGo(ClientContext& call);

  // Blocks until the Done that `begin` is given has run; what that was told.
  bool Await(absl::FunctionRef<void(MessageStream::Done)> begin);

  // Lends memory to the server until the call of `context` has ended, however it ends: put the
  // handle into the request. Connects first if need be. The memory is not copied; the caller leaves
  // it alone meanwhile.
  absl::StatusOr<BulkHandle> Lend(ClientContext& context, std::span<std::byte> memory,
                                  BulkAccess access);

  // To one at least. Unavailable: why there is no connection. DeadlineExceeded.
  absl::Status WaitUntilConnected(absl::Duration timeout);
  ChannelCounters counters() const;

 private:
  friend class ClientContext;
  struct Blocked;
  struct Found;  // what a name is
  static absl::StatusOr<Found> Find(const std::string& name, const ChannelOptions& options);
  Channel(const std::string& name, Found found, const ChannelOptions& options, Context context);

  const char* OnFrame(Session& session, const Frame& frame,
                      std::span<const std::byte> carried) override;
  void OnEnd(Session& session, const absl::Status& why) override;
  void OnQuiet(Session& session) override;

  void StartWith(const Method& method, const google::protobuf::MessageLite& request,
                 google::protobuf::MessageLite* response, ClientContext& context, CallDone& done);
  absl::Status Intercept(ClientContext& call);
  void TellInterceptors(ClientContext& call, const absl::Status& status);
  absl::Status AdmitLocked(ClientContext& context, const google::protobuf::MessageLite& request);
  absl::Status SendLocked(ClientContext& call, const google::protobuf::MessageLite* request,
                          Session& session);
  void EnterLocked(ClientContext& call);
  ClientContext* FindLocked(uint32_t id);
  void RemoveLocked(ClientContext& call);
  void Finish(ClientContext& call, const absl::Status& status);
  void EndEarly(ClientContext& call, const absl::Status& status, bool at_once);
  void Cancel(ClientContext& call);
  void EndSoon(ClientContext& call, const absl::Status& why);
  bool RepeatLocked(ClientContext& call);
  static bool MayRepeat(const ClientContext& call);
  const char* OnStream(Session& session, const Frame& frame, std::span<const std::byte> carried);
  const char* OnResponse(Session& session, const Frame& frame, std::span<const std::byte> carried);
  void EndIdle();
  int64_t Tick(int64_t now);

  // Calls that end with the status beside them; without the lock.
  using Over = std::vector<std::pair<ClientContext*, absl::Status>>;
  void FinishAll(Over over);

  // Which connection (channel_names.cc).
  Session* PickLocked();
  Session* SessionForLocked(const ClientContext& call);
  void Resolved(const absl::StatusOr<std::vector<std::string>>& addresses);
  void LetGoLocked(Target& target);

  // How each gets its connection (channel_connect.cc).
  void TryLocked();
  void ConnectLocked(Target& target);
  void RunConnector(Target& target, absl::Duration pause);
  absl::StatusOr<std::unique_ptr<Session>> ConnectOnce(const std::string& address);
  void Connected(Target& target, std::unique_ptr<Session> session);
  void NotConnected(Target& target, const absl::Status& why);
  void ForgetLocked(Target& target);
  Target* TargetOfLocked(const Session& session);
  void LostLocked(Target& target);
  void LookAfterIdlingLocked();
  bool TryingLocked() const;
  absl::Status WaitLocked(ClientContext& call);
  Over SendWaitingLocked();
  Over GiveUpLocked();
  void EndAll();
  void Reap();

  // Whether its server wants calls (channel_health.cc).
  std::unique_ptr<HealthWatch> NewWatch();
  void WatchHealthLocked(Target& target, std::unique_ptr<HealthWatch> watch);
  void ReadHealth(HealthWatch& watch);
  void OnHealth(HealthWatch& watch);
  void OnHealthEnd(HealthWatch& watch, const absl::Status& status);
  void AttendLocked(HealthWatch& watch, bool attended);

  const std::string name_;
  const ChannelOptions options_;
  const bool eager_;  // connects, and again, whether there are calls or not
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
  std::vector<std::unique_ptr<Target>> targets_;
  std::vector<std::unique_ptr<Target>> leaving_;
  size_t turn_ = 0;                            // who is first among equals
  std::vector<std::unique_ptr<Session>> old_;  // no new calls; some may be running
  std::vector<std::unique_ptr<HealthWatch>> watches_;
  uint64_t connections_ = 0;
  bool resolving_ = false;  // the name was never answered for
  bool closing_ = false;
  uint64_t gave_up_ = 0;  // so often nobody was left to wait for
  absl::Status last_failure_ = {};
  std::condition_variable changed_;  // connected, or not; or who is left
  Waiter* closed_ = nullptr;         // leader: who waits for the last connection to be gone
  // Leader: in no table any more, and not told yet.
  std::deque<Over::value_type> over_;
  ChannelCounters counters_;
  std::unique_ptr<Resolver> resolver_;
};

}  // namespace verbena::rpc
