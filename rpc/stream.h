// SPDX-License-Identifier: Apache-2.0
// One end of a call's messages, both directions. What is not read yet is bounded by a window that
// the reader opens again as it reads, so a slow reader slows its writer down and nobody else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "rpc/memory_budget.h"

namespace verbena::rpc {

class Session;

// Any thread. At most one Read and one Write at a time.
class MessageStream {
 public:
  // true: it is done. false: the call has ended, or, of a read, the peer has said that it was all.
  using Done = std::function<void(bool)>;
  // Begins with a Done of its own, waits for that, and says what it was told.
  using Blocker = std::function<bool(absl::FunctionRef<void(Done)> begin)>;

  // `done` runs when the next message may follow; the message itself may go at once.
  void Write(const google::protobuf::MessageLite& message, Done done);
  // Behind all that was written: nothing more comes.
  void WritesDone();
  void Read(google::protobuf::MessageLite* into, Done done);

  bool WriteAndWait(const google::protobuf::MessageLite& message) {
    return block_([&](Done done) { Write(message, std::move(done)); });
  }
  bool ReadAndWait(google::protobuf::MessageLite* into) {
    return block_([&](Done done) { Read(into, std::move(done)); });
  }

  // For whoever owns the call.
  void SetBlocker(Blocker block) { block_ = std::move(block); }
  void SetBroken(std::function<void(absl::Status)> broken) { broken_ = std::move(broken); }
  void SetBudget(MemoryBudget* budget) { budget_ = budget; }  // of long messages that come
  // From now on it can send. What to tell true of a write that was waiting, if there is one.
  [[nodiscard]] Done Attach(Session& session, uint32_t call);
  // Leader. Null, or what rule the peer broke.
  const char* OnMessage(bool last, std::span<const std::byte> bytes);
  const char* OnWindow(uint32_t bytes);
  // Whoever still waits, to be told false.
  struct Ends {
    Done write, read;
    void Run() const {
      if (write) write(false);
      if (read) read(false);
    }
  };
  // Of messages, as they travel. At the end of the call.
  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t received_bytes() const { return received_bytes_; }
  // The call has ended: what came before may still be read, all else is false.
  [[nodiscard]] Ends OnEnd();

 private:
  void SendLocked(const std::string& message);
  void SendLastLocked();
  // What `reading_` may have now; true if `done` is to be told `result`.
  bool TakeLocked(Done* done, bool* result, absl::Status* broken);

  std::mutex lock_;  // before a session's
  Session* session_ = nullptr;
  uint32_t call_ = 0;
  bool ended_ = false;
  Blocker block_;
  std::function<void(absl::Status)> broken_;

  uint64_t sent_bytes_ = 0;
  uint64_t received_bytes_ = 0;
  int64_t may_send_ = 0;  // bytes
  bool has_pending_ = false;
  std::string pending_;  // written, and waits for its window
  Done writing_;
  bool writes_done_ = false;

  struct Unread {
    std::string bytes;
    MemoryBudget::Share share;
  };
  std::deque<Unread> unread_;
  MemoryBudget* budget_ = nullptr;
  uint32_t outstanding_ = 0;  // bytes that came and were not granted again
  uint32_t to_grant_ = 0;     // bytes that were read since
  bool all_came_ = false;
  google::protobuf::MessageLite* reading_ = nullptr;
  Done read_;
};

}  // namespace verbena::rpc
