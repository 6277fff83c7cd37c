// SPDX-License-Identifier: Apache-2.0
// One call at its caller: what it is to have, what it brought back. For one call, and alive until
// that has ended; not to be moved meanwhile. Cancel() from any thread, the rest from the caller's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "rpc/envelope.h"
#include "rpc/interceptor.h"
#include "rpc/method.h"
#include "transport/protection_domain.h"

namespace google::protobuf {
class MessageLite;
}

namespace verbena::rpc {

class Channel;
class MessageStream;
class Session;

// How a call that was started ends. Runs once, on whatever thread moves the channel.
class CallDone {
 public:
  virtual void Run(const absl::Status& status) = 0;

 protected:
  ~CallDone() = default;
};

class ClientContext {
 public:
  ClientContext() = default;
  explicit ClientContext(absl::Duration timeout) : timeout_(timeout) {}
  ClientContext(const ClientContext&) = delete;
  ClientContext& operator=(const ClientContext&) = delete;

  // DEADLINE_EXCEEDED after that, from the start of the call; the server is told the rest of it.
  void set_timeout(absl::Duration timeout) { timeout_ = timeout; }
  // Waits for a connection as long as it has time. Without: UNAVAILABLE if connecting fails.
  void set_wait_for_ready(bool wait) { wait_for_ready_ = wait; }
  void AddMetadata(std::string key, std::string value) {
    metadata_.insert_or_assign(std::move(key), std::move(value));
  }

  // For interceptors, while they run: what it is and goes to. `peer` is the channel's name.
  absl::string_view method() const { return method_->name; }
  const std::string& peer() const { return *intercepted_->peer; }
  absl::Duration timeout() const { return timeout_; }
  const Metadata& metadata() const { return metadata_; }

  // CANCELLED, unless it has ended; also of one that is yet to start. The server's handler is told.
  void Cancel();

  // After the call. Metadata of the server's; how often it was tried.
  const Metadata& server_metadata() const { return server_metadata_; }
  int attempts() const { return attempts_; }

 private:
  friend class Channel;

  absl::Duration timeout_ = absl::InfiniteDuration();
  bool wait_for_ready_ = false;
  Metadata metadata_;
  Metadata server_metadata_;

  std::atomic<bool> cancelled_ = false;

  // The channel's, and only under its lock.
  std::atomic<Channel*> channel_ = nullptr;  // since it was started
  const Method* method_ = nullptr;
  google::protobuf::MessageLite* response_ = nullptr;
  CallDone* done_ = nullptr;
  MessageStream* stream_ = nullptr;  // of its messages; null: it has one of each
  uint32_t id_ = 0;
  int64_t deadline_ns_ = 0;
  bool attended_ = false;  // nobody blocks for it
  bool internal_ = false;  // the channel's own; nobody's call
  int attempts_ = 0;
  Session* session_ = nullptr;  // it was sent on; null: it waits for a connection
  std::string kept_;            // the request, while it may have to be sent (again)
  std::vector<MemoryRegion> leases_;
  uint64_t leased_on_ = 0;    // Session::number
  absl::Status ending_ = {};  // not OK: it ends with this when the server has let go of the leases
  std::unique_ptr<Interception> intercepted_;
};

}  // namespace verbena::rpc
