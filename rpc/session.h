// SPDX-License-Identifier: Apache-2.0
// One connection of RPC, the same at both ends: frames in both directions with credits, messages
// that are too long to be sent read out of the sender's memory, and bulk transfers. Knows nothing
// of calls but their numbers.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/driver.h"
#include "rpc/frame.h"
#include "rpc/limits.h"
#include "rpc/memory_budget.h"
#include "rpc/send_ring.h"
#include "rpc/transfer.h"
#include "transport/context.h"

namespace verbena::rpc {

class Session;

// Whose session it is. All on the leader.
class SessionUser {
 public:
  // `carried`: head and body, for the time of the call; less than the frame says if there was no
  // memory to read it into. An answer that is not null says what is wrong with it, and ends the
  // connection.
  virtual const char* OnFrame(Session& session, const Frame& frame,
                              std::span<const std::byte> carried) = 0;
  // Once. Nothing can be sent any more; transfers end with an error after this.
  virtual void OnEnd(Session& session, const absl::Status& why) = 0;
  // It has ended, and no transfer is left: it may be destroyed, though not in here.
  virtual void OnQuiet(Session& session) = 0;

 protected:
  ~SessionUser() = default;
};

struct SessionCounters {
  uint64_t messages_sent = 0;
  uint64_t frames_sent = 0;
  uint64_t frames_received = 0;
  uint64_t fetched_bytes = 0;      // of messages that were read out of the sender's memory
  uint64_t transferred_bytes = 0;  // by Begin(); none of them is copied

  SessionCounters& operator+=(const SessionCounters& other) {
    messages_sent += other.messages_sent;
    frames_sent += other.frames_sent;
    frames_received += other.frames_received;
    fetched_bytes += other.fetched_bytes;
    transferred_bytes += other.transferred_bytes;
    return *this;
  }
};

class Session final : public Flushable {
 public:
  // Ready for Connect or Accept: receives are posted.
  // `budget` is for long messages in both directions, and for short ones that wait for the peer's
  // receives; null: there is no limit.
  static absl::StatusOr<std::unique_ptr<Session>> Make(Driver& driver, Device& device,
                                                       uint32_t max_message, SessionUser& user,
                                                       MemoryBudget* budget = nullptr);
  ~Session();  // on the leader, or when nothing runs, or before it was connected

  QueuePair& queue_pair() { return qp_; }
  std::string hello() const;
  // What the peer's private data says. Before anything is sent; InvalidArgument, see DecodeHello.
  absl::Status SetPeer(absl::string_view private_data);
  // While it is not 0 the user's other threads may be in here, and it is not destroyed.
  std::atomic<int> pins = 0;
  bool goes_away = false;  // leader: the peer begins no more here
  // The user's, under its lock: how many calls run here, and which of its connections this is.
  uint32_t calls = 0;
  uint64_t number = 0;

  // Puts a frame behind those that wait; `fill` writes the head and the body. It leaves when the
  // round ends, or FlushSoon is called. Unavailable: it has ended. ResourceExhausted: longer than
  // the peer's max_message, or no memory can be registered, or too much waits for a peer that does
  // not read, and the connection ends. Any thread.
  absl::Status Send(const Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill);
  absl::Status Send(const Frame& frame) {
    return Send(frame, [](std::span<std::byte>) {});
  }
  // Leader. All that was put here has arrived; if nobody knows, this asks for it to be known.
  bool AllSent();
  void FlushSoon() { driver_.FlushSoon(*this); }
  void Flush() override;

  // Nobody wants what still waits to be read of this call. True if its request was among that.
  bool DropWaiting(uint32_t call);

  // Any thread. If it is OK `transfer.done` runs in any case, on the leader; after Abandon as soon
  // as no chunk is under way. `posted`: all of it is under way now, so what is sent from here on
  // arrives behind it (IBTA 9.5, RFC 5040 5.5).
  absl::Status Begin(Transfer& transfer, bool* posted = nullptr);
  void Abandon(Transfer& transfer, const absl::Status& why);  // leader

  // Memory for the peer, or of a transfer, on this connection's device.
  absl::StatusOr<MemoryRegion> Register(std::span<std::byte> memory, Access access) {
    return lane_.domain.Register(memory, access);
  }

  void End(const absl::Status& why);  // leader; disconnects
  bool ended() const { return ended_.load(); }
  bool quiet() const { return ended() && operations_.load() == 0; }
  SessionCounters counters() const;

 private:
  friend struct Transfer;
  struct Receive final : Completer {
    void Complete(const WorkCompletion& wc) override { session->Received(*this, wc); }
    Session* session = nullptr;
    uint32_t index = 0;
  };
  struct Sent final : Completer {
    void Complete(const WorkCompletion& wc) override { session->SendsDone(wc); }
    Session* session = nullptr;
  };
  // A message of ours that the peer is to read.
  struct Lent {
    std::unique_ptr<std::byte[]> bytes;
    MemoryRegion region;
    uint64_t length = 0;
    MemoryBudget::Share share;
  };
  // Frames of a call that wait for a message of it that is being read: a call's messages stay in
  // order. The first is that message.
  struct Waiting {
    Frame frame;
    std::vector<std::byte> bytes;  // what it carries; by address: room for it
    MemoryBudget::Share share;     // … counted while it is being read
  };
  struct Line {
    std::deque<Waiting> frames;
    Transfer transfer;  // of the first
    bool dropped = false;
  };
  // An encoded frame that the ring has no room for.
  struct Overflow {
    std::string bytes;
    MemoryBudget::Share share;
  };
  Session(Driver& driver, Lane& lane, uint32_t max_message, SessionUser& user,
          MemoryBudget* budget);
  absl::Status SetUp();
  void EndSoon(const absl::Status& why);
  void Received(Receive& receive, const WorkCompletion& wc);
  const char* Take(std::span<const std::byte> message);
  void PostReceive(Receive& receive);
  void SendsDone(const WorkCompletion& wc);
  bool PutLocked(const Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill);
  bool KeepLocked(const Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill);
  void FlushLocked();
  bool PostMessagesLocked();
  void PostCreditsLocked(bool signaled);
  size_t PostLocked(std::span<const SendWr> requests);
  void CountPostedLocked(size_t messages, bool signaled);
  bool RefillLocked();
  absl::Status Lend(Frame& frame, absl::FunctionRef<void(std::span<std::byte>)> fill);
  void TakeBackLocked(uint32_t number);
  const char* Deliver(const Frame& frame, std::span<const std::byte> carried);
  const char* Enqueue(const Frame& frame, std::span<const std::byte> carried);
  void SayFetched(const Frame& frame);
  void StartFetches();
  void Fetched(uint32_t call, const absl::Status& status);
  void DeliverLine(uint32_t call);
  bool PostChunkLocked(Transfer& transfer);
  void PostChunksLocked();
  static void EndTransfer(Transfer& transfer);
  void OperationDone(Transfer& transfer, const WorkCompletion& wc);

  Driver& driver_;
  Lane& lane_;
  SessionUser& user_;
  const uint32_t max_message_;
  MemoryBudget* const budget_;
  std::unique_ptr<std::byte[]> memory_;  // the ring, then the receives
  MemoryRegion region_;
  QueuePair qp_;
  std::array<Receive, kReceives> receives_;
  Sent sent_;
  std::atomic<bool> ended_ = false;
  std::atomic<uint32_t> operations_ = 0;    // chunks in flight
  std::atomic<uint32_t> told_ = kReceives;  // receives that the peer knows of and has not used
  Hello peer_;

  mutable std::mutex lock_;  // all below, and the order of sends
  SendRing ring_;
  std::deque<SendRing::Message> signaled_;  // posted, and not known to have been sent
  SendRing::Message last_posted_;
  uint32_t since_signal_ = 0;  // messages
  std::deque<Overflow> overflow_;
  uint64_t overflow_bytes_ = 0;
  uint32_t credits_ = 0;                      // receives that the peer has for us
  uint16_t owed_ = 0;                         // receives that the peer does not know of yet
  absl::flat_hash_map<uint32_t, Lent> lent_;  // by number
  uint64_t lent_bytes_ = 0;
  uint32_t next_lent_ = 0;
  std::deque<Transfer*> transfers_;  // with chunks to post
  SessionCounters counters_;

  // Leader only, but for counters().
  std::atomic<uint64_t> frames_received_ = 0;
  absl::flat_hash_map<uint32_t, std::unique_ptr<Line>> lines_;  // by call
  std::deque<uint32_t> to_fetch_;  // calls whose first frame is to be read
  size_t fetching_ = 0;
  size_t waiting_bytes_ = 0;  // in all lines, of frames that carry theirs
};

}  // namespace verbena::rpc
