// SPDX-License-Identifier: Apache-2.0
// Serves methods of any number of services to any number of connections, on every device that the
// callers come in on.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rpc/connection.h"
#include "rpc/driver.h"
#include "rpc/interceptor.h"
#include "rpc/server_context.h"
#include "rpc/session.h"

namespace verbena::rpc {

class HealthService;

struct ServerOptions {
  ContextOptions context = {};  // which devices
  Wait wait = Wait::kAdaptive;
  absl::Duration spin = absl::Microseconds(50);
  int threads = 1;  // that move connections; a connection stays with one
  // Threads that handlers run on. 0: inline, on the thread that moves the connection; the fastest,
  // for handlers that never block.
  int handler_threads = 4;
  uint32_t max_calls = 4096;         // at once, of all connections; more are RESOURCE_EXHAUSTED
  uint32_t max_message = 64u << 20;  // bytes of a request
  // Bytes of messages that do not fit a receive, of all connections: requests from when they are
  // read until their calls have ended, messages of streams until they are, answers until their
  // callers have read them. What would be more is RESOURCE_EXHAUSTED.
  uint64_t max_memory = uint64_t{1} << 30;
  std::vector<ServerInterceptor> interceptors = {};
  bool health = false;  // serves proto/health.proto, too
};

struct ServerCounters {
  uint64_t connections = 0;  // accepted
  uint64_t calls = 0;        // begun
  uint64_t refused = 0;      // over max_calls, or max_memory
  uint64_t running = 0;      // now
  uint64_t memory = 0;       // of max_memory, now
};

// What a service is made of.
struct Handler {
  const Method* method = nullptr;
  std::function<IncomingCall*()> make;  // a call that is Parsed and Handled next
  bool always = false;                  // also while the server shuts down
};

// Base of what generated code makes of a `service`. Stays until the server is gone.
class Service {
 public:
  virtual ~Service() = default;
  virtual std::vector<Handler> handlers() = 0;
};

class Server {
 public:
  static absl::StatusOr<std::unique_ptr<Server>> Open(const ServerOptions& options = {});
  // Shutdown(zero), then waits for the handlers that run.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Before Start. AlreadyExists: two methods of one name, or number.
  absl::Status Add(Service& service);
  absl::Status Start(const std::string& address);  // "host:port", "[::]:0"
  std::string address() const;                     // with the port that it got
  int port() const { return listener_.port(); }

  // What the health service says of "package.Service", or of the whole, ""; a service that was
  // added serves until it is told otherwise. Any thread. Before a Shutdown it sends callers
  // elsewhere while all is still served.
  void SetServing(const std::string& service, bool serving);

  // No more calls are begun; those that run may end until `timeout`, then they are cancelled.
  // DeadlineExceeded if there were such.
  absl::Status Shutdown(absl::Duration timeout);
  ServerCounters counters() const;

 private:
  friend class IncomingCall;
  friend class ServerContext;
  friend struct Connection;
  explicit Server(const ServerOptions& options, Context context);

  void AcceptWaiting();
  absl::Status Accept(ConnectionRequest& request);
  const char* OnRequest(Connection& connection, const Frame& frame,
                        std::span<const std::byte> carried);
  absl::Status Admit(const Frame& frame, const Handler** handler);
  void HandlerThread();
  absl::Status Intercept(IncomingCall& call);
  void Serve(IncomingCall& call);
  void ReapSoon(Driver& driver);
  void Reap(Driver& driver);
  void ForEachConnection(const std::function<void(Connection&)>& what);
  int64_t Tick(Driver& driver, int64_t now);

  const ServerOptions options_;
  MemoryBudget memory_;
  Context context_;
  Listener listener_;
  std::unique_ptr<HealthService> health_;  // null: not wanted
  absl::flat_hash_map<uint64_t, Handler> handlers_;
  std::vector<std::unique_ptr<Driver>> drivers_;
  size_t next_driver_ = 0;  // leader of the first: it accepts

  mutable std::mutex lock_;
  std::condition_variable ended_;  // the last connection, which stays for its calls
  std::vector<std::unique_ptr<Connection>> connections_;
  uint64_t accepted_ = 0;  // connections
  std::atomic<bool> draining_ = false;

  std::atomic<uint64_t> calls_ = 0;
  std::atomic<uint64_t> refused_ = 0;
  std::atomic<uint64_t> running_ = 0;  // each is counted out before its connection lets it go

  std::mutex queue_lock_;
  std::condition_variable queued_;
  std::deque<IncomingCall*> queue_;
  bool stop_handlers_ = false;
  std::vector<std::thread> handler_threads_;
};

}  // namespace verbena::rpc
