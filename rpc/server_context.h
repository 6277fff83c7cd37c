// SPDX-License-Identifier: Apache-2.0
// One call at its server: who calls, how long it has, and the memory that the caller lent. Alive
// until the call has ended. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "proto/bulk.pb.h"
#include "rpc/envelope.h"
#include "rpc/interceptor.h"
#include "rpc/memory_budget.h"
#include "rpc/method.h"
#include "rpc/stream.h"
#include "rpc/transfer.h"

namespace verbena::rpc {

struct Connection;
class Server;

class ServerContext {
 public:
  ServerContext(const ServerContext&) = delete;
  ServerContext& operator=(const ServerContext&) = delete;

  const Metadata& metadata() const { return metadata_; }
  void AddMetadata(std::string key, std::string value) {  // goes with the response
    const std::lock_guard lock(lock_);
    answer_metadata_.insert_or_assign(std::move(key), std::move(value));
  }
  // For interceptors: what the handler is to find there, in place of what the caller said.
  void SetMetadata(std::string key, std::string value) {
    metadata_.insert_or_assign(std::move(key), std::move(value));
  }
  absl::string_view method() const { return method_->name; }  // "/package.Service/Method"
  const std::string& peer() const;                            // "10.0.0.1:51022"
  absl::Duration time_left() const;                           // infinite without a deadline
  bool cancelled() const { return cancelled_.load(); }  // or the caller is gone, or its time is up

  // Bulk data, between `bytes` here and [offset, offset + bytes.size()) of what the caller lent;
  // one-sided, so no byte is copied on the way. `bytes` stay until the end. OutOfRange: not inside
  // of what was lent. PermissionDenied: a push, but it may only be read. Cancelled: the call was.
  // Unavailable: the connection is gone, or the handle was never the caller's to lend.
  // These block, and are FailedPrecondition where handlers run inline: they would wait for
  // themselves.
  absl::Status Pull(const BulkHandle& from, uint64_t offset, std::span<std::byte> bytes);
  absl::Status Push(const BulkHandle& to, uint64_t offset, std::span<const std::byte> bytes);
  // These do not. `done` runs once, on the server's thread, or at once if it is refused.
  using Done = std::function<void(absl::Status)>;
  void Pull(const BulkHandle& from, uint64_t offset, std::span<std::byte> bytes, Done done);
  void Push(const BulkHandle& to, uint64_t offset, std::span<const std::byte> bytes, Done done);
  // What the answer is about. `done` runs as soon as an answer would arrive behind it, mostly at
  // once and on this thread, and its OK only says so: if the push fails after that the answer does
  // not arrive. `bytes` stay until `kept` is destroyed, and so does this call.
  void PushBehind(const BulkHandle& to, uint64_t offset, std::span<const std::byte> bytes,
                  std::unique_ptr<Kept> kept, Done done);

 protected:
  ServerContext() = default;
  virtual ~ServerContext();

 private:
  friend class Server;
  friend struct Connection;
  friend class IncomingCall;
  struct Moving {
    Transfer transfer;
    Done done;
    std::unique_ptr<Kept> kept;
  };
  absl::Status Check(const BulkHandle& handle, uint64_t offset, size_t bytes, bool writes) const;
  void Move(Opcode opcode, const BulkHandle& handle, uint64_t offset, std::span<std::byte> bytes,
            bool behind, std::unique_ptr<Kept> kept, Done done);
  void Moved(std::unique_ptr<Moving> moved, const absl::Status& how);
  absl::Status Block(absl::FunctionRef<void(Done)> begin);
  void Attach(MessageStream& stream);

  Connection* connection_ = nullptr;
  const Method* method_ = nullptr;
  uint32_t id_ = 0;
  int64_t deadline_ns_ = 0;
  Metadata metadata_;
  Metadata answer_metadata_;
  std::atomic<bool> cancelled_ = false;
  std::mutex lock_;  // before a session's
  std::vector<Transfer*> transfers_;
  absl::Status stopped_ = {};  // not OK: no transfer begins any more
  std::atomic<bool> answered_ = false;
  const char* wrong_ = nullptr;  // with the request
  MemoryBudget::Share share_;    // of a long request
  std::unique_ptr<Interception> intercepted_;
  // The handler, and each transfer: the call is freed with the last. One more only while the
  // connection's table has the call, or by who has a part.
  std::atomic<int> parts_ = 1;
  bool reusable_ = false;  // the next call of the method may have this object
};

// A request on its way through its handler. Whoever has the pointer ends it with Finish, once.
class IncomingCall : public ServerContext {
 public:
  // False: the request is not what the method takes. The bytes are gone afterwards.
  virtual bool Parse(std::span<const std::byte> body) = 0;
  virtual void Handle() = 0;  // ends in Finish, now or later
  virtual MessageStream* stream() { return nullptr; }
  virtual void ClearRequest() = 0;
  // `response`: of an OK one; borrowed for the call. Frees this, unless transfers still run.
  void Finish(const absl::Status& status, const google::protobuf::MessageLite* response);

 protected:
  ~IncomingCall() override = default;

 private:
  friend class Server;
  friend class ServerContext;
  friend struct Connection;
  friend struct std::default_delete<IncomingCall>;
  void Answer(const absl::Status& status, const google::protobuf::MessageLite* response);
  void AnswerFailed(const absl::Status& why);
  void AddAtEnd(AtEnd at_end);
  // It was answered, or nobody is there to be.
  void TellInterceptors(const absl::Status& how, uint64_t sent_bytes);
  CallOutcome Outcome(const absl::Status& how);
  void Cancel(const absl::Status& why);  // leader
  void DropPart();
  // Ended: as if it were new, but for the memory that it has.
  void Renew();
};

}  // namespace verbena::rpc
