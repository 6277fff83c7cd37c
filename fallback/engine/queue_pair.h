// SPDX-License-Identifier: Apache-2.0
// A connected queue pair, reliable or not, on an iWARP stream, sans I/O: bytes in, completions and
// bytes out. No socket, clock, thread or lock across a call; whoever drives it brings those.
//
// Two kinds of entry. Posts may come from any thread. Everything else belongs to the *owner*: the
// one thread that at this moment drives the queue pair. A drive is bounded and never waits.
//
//   post.cc      any thread: checks and queues requests
//   transmit.cc  owner: queued requests, responses and control messages become FPDUs
//   receive.cc   owner: the byte stream becomes segments, and their payload is placed
//   requester.cc owner: what the peer says about our requests: acknowledged, refused, failed
//   responder.cc owner: what the peer asks of us
//   lifecycle.cc owner: states, errors, flushing, the end of the stream
//   unreliable.cc owner: what is of unreliable connections alone
//   hardships.cc owner: what debug modes do to programs
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "fallback/engine/completion_ring.h"
#include "fallback/engine/hardships.h"
#include "fallback/engine/key_table.h"
#include "fallback/engine/limits.h"
#include "fallback/engine/receive_queue.h"
#include "fallback/engine/send_queue.h"
#include "fallback/engine/session.h"
#include "fallback/engine/spin_lock.h"
#include "fallback/engine/transmit_batch.h"
#include "fallback/wire/control.h"
#include "fallback/wire/ddp.h"
#include "fallback/wire/extension.h"
#include "fallback/wire/rdmap.h"
#include "transport/capabilities.h"
#include "transport/counters.h"
#include "transport/events.h"
#include "transport/qp_state.h"
#include "transport/work_request.h"

namespace verbena::engine {

using Nanos = int64_t;
inline constexpr Nanos kNever = INT64_MAX;

// Cold: what the driver is told, by the owner or (OnReceivesWanted) a posting thread.
class QueuePairObserver {
 public:
  virtual ~QueuePairObserver() = default;
  virtual void OnEvent(EventType type, const absl::Status& why) = 0;
  virtual void OnSharedLimit() = 0;
};

// Turns the API's window and region into the engine's, while the post runs: fills e->window,
// e->region, the new key, address and length.
class WindowBinder {
 public:
  virtual ~WindowBinder() = default;
  virtual void PrepareBind(const WindowBinding& bind, SendEntry* entry) = 0;
};

struct QueuePairConfig {
  QpType type = QpType::kRc;  // or kUc, at both ends
  uint32_t number = 0;
  uint32_t domain = 0;
  uint32_t receive_domain = 0;  // of the receives: a shared queue has its own (IBTA 10.2.9)
  QpLimits limits;
  Access access = Access::kLocalRead;
  bool signal_all = true;
  CompletionRing* send_ring = nullptr;
  CompletionRing* receive_ring = nullptr;
  ReceiveQueue* shared_receives = nullptr;  // null: a receive queue of its own
  KeyTable* keys = nullptr;
  QueuePairObserver* observer = nullptr;
  WindowBinder* binder = nullptr;
  Hardships hardships;
};

class QueuePair {
 public:
  explicit QueuePair(const QueuePairConfig& config);

  // --- any thread ------------------------------------------------------------------------------
  PostResult PostSend(std::span<const SendWr> requests);
  // `wake`: the peer was refused for want of a receive; drive the queue pair soon.
  PostResult PostReceive(std::span<const ReceiveWr> requests, bool* wake);
  QpState state() const { return state_.load(std::memory_order_acquire); }
  // Sent and unacknowledged, or not yet sent: a post that finds it idle should drive at once.
  uint64_t outstanding() const { return sq_.tail() - sq_.head(); }
  // The owner: an acknowledgement is owed.
  bool owes() const {
    return told_rsn_ != applied_rsn_ && session_.features.has(wire::kAcknowledge);
  }
  // The owner: nothing is to be sent, and no timer runs.
  bool quiet() const {
    return OwesAtMostAcknowledgement() && !owes() && batch_.empty() && state() == QpState::kRts &&
           !rnr_.waiting;
  }
  // The owner: requests are posted and not sent, while answers to others are under way.
  bool gathering() const { return sq_.tail() != cursor_ && cursor_ != sq_.head(); }
  uint32_t number() const { return config_.number; }
  Capabilities capabilities() const;
  QpAttributes Query() const;
  QpCounters counters() const;
  const QueuePairConfig& config() const { return config_; }

  // --- owner: bytes ----------------------------------------------------------------------------
  // Where the next bytes of the stream should go, at most `max` pieces. Large payloads go straight
  // into their target; a drive that spans a change of the key table looks everything up again.
  int ReceiveSpace(iovec* into, int max);
  void Received(size_t n, Nanos now);
  void PlacementFailed();  // the receive call could not write to where ReceiveSpace said (EFAULT)
  void ReceiveEnded(int error, Nanos now);  // 0: end of stream, else errno
  // What to send now; empty: nothing. `idle`: the last receive found nothing, so owed
  // acknowledgements go out even alone.
  std::span<const iovec> Gather(bool idle, Nanos now);
  void Sent(size_t n);
  void SendFailed(int error);
  bool HasUnsent() const { return !batch_.empty(); }
  // A key has died: what is framed and unsent is copied while its memory is still there.
  void KeepUnsent();

  // A peer without large FPDUs: they follow the MSS, which the driver keeps up to date.
  bool within_mss() const { return session_.features.max_payload == 0; }
  void SetMss(uint32_t mss) { session_.mss = std::min(mss, kLargestMss); }

  Nanos deadline() const { return rnr_.waiting ? rnr_.deadline : kNever; }
  void Tick(Nanos now);
  bool finished() const { return finished_; }  // all that this end has to say has been said

  // --- owner: life -----------------------------------------------------------------------------
  void Connected(const Session& session);
  void SendFirst(std::span<const std::byte> bytes);  // before any FPDU: the reply of the hand-shake
  // Without a connection manager (0021), until RESET: Start makes it RTS, stream or no stream; the
  // peer's end leaves it there. Requests wait, until the driver gives up and the oldest fails;
  // unreliable ones are lost then, and at once when the peer has left.
  void SetUnmanaged() { unmanaged_ = true; }
  bool unmanaged() const { return unmanaged_; }
  bool unreliable() const { return config_.type == QpType::kUc; }
  bool peer_left() const { return peer_left_; }
  void Start();
  void PeerLost(const std::string& how);
  void PeerLeft();  // or is none that this one could have
  // Nothing more is to be done with the stream.
  bool over() const {
    return finished_ && !HasUnsent() && (state() == QpState::kErr || peer_left_);
  }
  absl::Status Modify(const QpModify& change);
  void Disconnect();
  // To ERR: `why` becomes cause(); flushes both queues.
  void Fail(const absl::Status& why);
  void FlushPosted();          // in ERR: what was posted since
  absl::Status cause() const;  // any thread
  bool connected() const { return connected_; }
  bool closing() const { return closing_; }
  // The stream is the driver's again; in ERR the queue pair stays as it is.
  void Detach();
  // What the driver should still send on the stream it takes away.
  std::vector<std::byte> TakeUnsent();
  void SetRetry(uint8_t rnr_retry, uint8_t retry_count, uint8_t timeout);

 private:
  friend class QueuePairTestPeer;

  // One FPDU of a tagged or Send message whose payload is being placed.
  struct Segment {
    enum class Kind : uint8_t { kNone, kWrite, kSend, kReadResponse, kDiscard };
    Kind kind = Kind::kNone;
    uint8_t ddp = 0, rdmap = 0;
    uint32_t key = 0;
    uint64_t address = 0;  // of the first payload byte: TO, or offset in the message
    uint32_t total = 0;    // payload bytes
    uint32_t done = 0;
    uint32_t held = 0;  // tail bytes that are published last
    uint32_t crc = 0;
    uint64_t version = 0;         // of the key table when the targets were looked up
    int targets = 0, target = 0;  // how many, and the current one
    bool guarded = false;
    std::array<iovec, kMaxSge> target_list;
  };

  // A read or atomic of ours that the peer has yet to answer.
  struct OutboundRead {
    uint64_t position = 0;  // in the send queue
    uint32_t sink = 0;      // private, single-use key of the answer's target
    uint32_t received = 0;
    bool confirms = false;   // not the application's: it stands for an acknowledgement
    uint32_t confirmed = 0;  // … of this request and all before it
  };
  // A read or atomic of the peer's that we have yet to answer.
  struct InboundRead {
    bool atomic = false;
    uint32_t sink_stag = 0;
    uint64_t sink_offset = 0;
    uint32_t source_stag = 0;
    uint64_t source_offset = 0;
    uint32_t size = 0;
    uint32_t sent = 0;
    uint32_t rsn = 0;  // of the request
    uint32_t msn = 0;  // atomics: of the response
    uint32_t request_id = 0;
    uint64_t original = 0;
  };
  template <typename T>
  struct Ring {  // fixed, owner only
    std::unique_ptr<T[]> slots{new T[kMaxDepth]};
    uint32_t head = 0;
    uint32_t count = 0;
    T& front() { return slots[head % kMaxDepth]; }
    T& at(uint32_t i) { return slots[(head + i) % kMaxDepth]; }
    const T& at(uint32_t i) const { return slots[(head + i) % kMaxDepth]; }
    void Push(const T& v) { slots[(head + count++) % kMaxDepth] = v; }
    void Pop() { ++head, --count; }
  };

  // post.cc
  PostError CheckPost(const SendWr& wr) const;
  void Enqueue(uint64_t position, const SendWr& wr);

  // transmit.cc
  bool OwesAtMostAcknowledgement() const {
    return cursor_ == sq_.tail() && irq_.count == 0 && !closing_ && !ready_owed_ &&
           !rnr_nak_owed_ && !dropping_ && !rnr_.resume_owed && !session_.confirm;
  }
  bool AcknowledgementIsDue(bool idle) const {
    return idle || closing_ || applied_since_ack_ >= kAckEveryRequests ||
           bytes_since_ack_ >= kAckEveryBytes;
  }
  void AppendOwed(bool idle, bool* ack);
  void Answered(uint32_t rsn);
  void AppendWork(bool idle);
  void AppendFarewell();
  void AppendResponse();
  bool AppendRequest();
  bool MayStart(const SendEntry& entry) const;
  bool Halted() const;
  bool RunLocal(SendEntry& entry);
  void Begin(SendEntry& entry);
  bool AppendDataSegment(SendEntry& entry);
  static bool Readable(const Translation& where, uint32_t n);
  void AppendReadRequest(SendEntry& entry);
  bool ReadMayGo() const;
  bool ReadsOfTheProgram() const;
  bool ConfirmationDue() const;
  void AppendConfirmation();
  void AppendAtomicRequest(SendEntry& entry);
  void AppendImmediate(SendEntry& entry);
  struct Piece {
    const std::byte* host;
    uint32_t length;
  };
  // As this queue pair, or its peer by it.
  Reach ReachOf(uint32_t key, uint64_t address, uint64_t length, Access needed) const {
    return {key, config_.domain, config_.number, needed, address, length};
  }
  Translation Check(uint32_t key, uint64_t address, uint64_t length, Access needed) const {
    return config_.keys->Check(ReachOf(key, address, length, needed));
  }
  // The parts of the local data at the cursor that make up [offset, offset + n). False: a key,
  // its bounds or its access is wrong, or `use` said so.
  template <typename Use>
  bool WalkPayload(uint32_t offset, uint32_t n, Use use);
  bool CopyPayload(const SendEntry& entry, uint32_t offset, uint32_t n, std::byte* to);
  int Pieces(uint32_t offset, uint32_t n, Piece* out);  // -1: false
  void AppendControlMessage(const wire::Control& control, absl::string_view text = {});
  // `outside`: a large payload. Any other is at PlaceOfPayload already.
  template <typename Header>
  void AppendFpdu(Header header, uint32_t payload, std::span<const Piece> outside);
  std::byte* PlaceOfPayload(uint32_t header) { return batch_.next() + header; }
  template <typename Header>
  void AppendWhole(Header header, std::span<const std::byte> body);
  uint32_t SegmentSize(uint32_t length, uint32_t header) const {
    return length <= session_.features.max_payload ? length : PartSize(length, header);
  }
  uint32_t PartSize(uint32_t length, uint32_t header) const;
  uint8_t AckBit(const SendEntry& entry) const;
  void AdvanceCursor();
  void BindWindow(SendEntry& entry);

  // receive.cc
  void Parse(Nanos now);
  bool ParseNext(Nanos now);
  bool ContinueSegment(Nanos now);
  bool BeginTagged(Nanos now);
  bool BeginUntagged(Nanos now);
  void OpenSegment(Segment::Kind kind, uint8_t ddp, uint8_t rdmap, uint32_t header,
                   uint32_t payload);
  bool ResolveTargets();
  bool LookUpTargets();
  bool LookUpEntries(const Sge* sge, uint32_t count, uint32_t domain);
  bool Place(const std::byte* from, uint32_t n);  // false: the memory is not there any more
  bool PublishHeld(const std::byte* from, uint32_t n);
  void SkipTargets(uint32_t n);
  void FinishSegment(Nanos now);
  bool DropsRequests() const { return dropping_ || closing_; }
  size_t available() const { return rx_end_ - rx_begin_; }
  const std::byte* input() const { return rx_.get() + rx_begin_; }
  bool CheckCrc(const std::byte* fpdu, size_t size);

  // requester.cc
  bool HandleAck(uint32_t rsn);  // false: a lie, and the connection is dying
  bool HasLeft(uint32_t rsn);
  void HandleRnrNak(const wire::Control& control, Nanos now);
  void HandleNak(const wire::Control& control, absl::string_view text);
  void HandleTerminate(std::span<const std::byte> body);
  const SendEntry* Meant(const wire::Terminate& terminate);
  bool BeginReadResponse(const wire::TaggedHeader& header);
  void FinishReadResponse();
  bool TakeConfirmation(const wire::TaggedHeader& header);
  void HandleAtomicResponse(const wire::UntaggedHeader& header, const std::byte* body);
  void Rewind(uint64_t position);
  void Retire();
  void Complete(SendEntry& entry, WcStatus status, uint32_t vendor_error = 0);
  bool IsDone(const SendEntry& entry) const;
  void FailOldest(WcStatus status, const absl::Status& why);
  void FailRead(WcStatus status, const absl::Status& why);
  void RefuseAnswer(wire::TerminateError error, const char* why);

  // responder.cc
  void HeardFromPeer() {
    if (!may_send_) [[unlikely]] {
      MaySend();
    }
  }
  void MaySend();
  void HandleControl(const wire::Control& control, absl::string_view text, Nanos now);
  bool AllowedHere(Access kind, const char* what);
  bool ShortEnough(uint64_t length, WcStatus receive = WcStatus::kSuccess) {
    return length <= kMaxMessage || RefuseLength(receive);
  }
  bool RefuseLength(WcStatus receive);  // these: false
  bool RefuseForShortReceive();
  bool RefuseTarget(AccessFault fault);
  bool BeginWrite(const wire::TaggedHeader& header);
  bool BeginSend(const wire::UntaggedHeader& header);
  void FinishWrite();
  void FinishSend();
  void HandleMessage(const wire::UntaggedHeader& header, const std::byte* body, Nanos now);
  bool AcceptReadClass(const wire::UntaggedHeader& header);
  void HandleReadRequest(const wire::UntaggedHeader& header, const std::byte* body);
  void HandleAtomicRequest(const wire::UntaggedHeader& header, const std::byte* body);
  void HandleImmediate(const wire::UntaggedHeader& header, const std::byte* body);
  bool TakeReceive();
  void RefuseForLackOfReceive();
  void Applied(uint8_t rdmap, uint64_t bytes);
  void RefuseInvalidation();
  void CompleteReceive(WorkCompletion& wc, bool solicited);
  void FailReceive(WcStatus status);
  bool Invalidate(uint32_t key);
  void RefuseAccess(uint32_t rsn, const char* what, AccessFault fault, uint32_t key,
                    uint64_t address, uint64_t length);
  // `receive`: what the receive under way fails with; kSuccess: none is, or it is flushed.
  void RefuseRequest(uint32_t rsn, wire::NakCode code, wire::TerminateError error,
                     const std::string& text, std::optional<EventType> event,
                     WcStatus receive = WcStatus::kSuccess);
  void ProtocolFault(const wire::Fault& fault);
  std::vector<std::byte> SegmentToBlame() const;

  // hardships.cc
  void Poison(const Sge* sges, uint32_t count, uint32_t domain, uint32_t from, uint32_t n);
  uint64_t OperateAsDevice(std::atomic_ref<uint64_t> target, bool add, uint64_t operand,
                           uint64_t compare);

  // lifecycle.cc
  // To ERR, both queues flushed. What is already framed still goes out; then a Bye if `say_bye`.
  // `failed`: a request has completed in error, so none after it may complete well.
  void EnterError(const absl::Status& why, bool say_bye, bool failed = false);
  void Flush();
  void FlushSends();
  void FlushReceives();
  void SetState(QpState state) { state_.store(state, std::memory_order_release); }
  void SetCause(const absl::Status& why);
  void StreamLost(const std::string& how);
  void Reset();

  // unreliable.cc
  void Drop(Counter* counter);
  bool Dropped() const { return segment_.kind == Segment::Kind::kDiscard; }
  void FinishDroppedSegment();
  void GiveReceiveUp();
  void EndMessage();
  void HandleAbandoned(uint32_t rsn);
  void StopSends(WcStatus status);
  void SendToNobody();

  const QueuePairConfig config_;
  std::atomic<QpState> state_{QpState::kInit};
  Published<Access> access_;  // peers' rights at all; owner

  // --- connection
  bool connected_ = false;
  bool may_send_ = false;    // a responder waits for the initiator's first FPDU (RFC 5044 7.1)
  bool ready_owed_ = false;  // the initiator's ready-to-receive frame is to be sent
  bool ready_expected_ = false;
  bool ready_read_ = false;    // the peer's ready frame is a read, to be answered and not counted
  bool ready_answer_ = false;  // our ready frame was a read: its empty response is to come
  bool closing_ = false;       // ERR, but responses, Nak and Terminate or Bye go out first
  bool finished_ = false;
  bool peer_said_bye_ = false;
  bool unmanaged_ = false, peer_left_ = false;
  bool send_dead_ = false;  // sending failed; what the peer sent is still read
  Session session_;
  std::atomic<uint32_t> active_features_{0};
  std::atomic<bool> has_session_{false};

  // --- requester
  std::atomic<uint64_t> signaled_{0};  // behind the latest request that made a completion
  std::atomic<uint64_t> polled_{0};    // behind the latest one whose completion was polled
  SendQueue sq_;
  uint64_t cursor_ = 0;  // next entry to be framed
  bool cursor_started_ = false;
  uint32_t cursor_offset_ = 0;     // payload bytes of it already framed
  bool cursor_immediate_ = false;  // its Write is framed, its Immediate is not
  uint64_t begun_ = 0;             // entries before it were framed at least once
  uint32_t next_rsn_ = 1;
  uint32_t acked_rsn_ = 0;
  uint32_t asked_rsn_ = 0;  // plain peers: a read behind this request is on its way
  uint32_t send_msn_ = 1;
  uint32_t read_msn_ = 1;
  uint32_t next_sink_ = 0;
  Ring<OutboundRead> orq_;
  struct {
    bool waiting = false;  // the timer runs
    bool probing = false;  // only `rsn` may go until it is acknowledged
    bool resume_owed = false;
    uint32_t rsn = 0;
    Nanos deadline = kNever;
    uint8_t left = 7;
  } rnr_;
  Published<uint8_t> rnr_retry_ = 7;
  Published<uint8_t> retry_count_ = 7;
  Published<uint8_t> timeout_ = 18;
  Published<uint8_t> min_rnr_timer_ = 12;
  Published<bool> drained_reported_ = false;
  Published<uint32_t> agreed_ord_ = 0;
  Published<uint32_t> agreed_ird_ = 0;

  // --- responder
  std::unique_ptr<ReceiveQueue> own_receives_;
  ReceiveQueue* receives_;
  Receive current_;  // if receiving_: it was taken and is not complete
  bool receiving_ = false;
  uint32_t applied_rsn_ = 0;
  uint32_t told_rsn_ = 0;  // up to here the peer knows: acknowledged or answered
  bool ack_owed_ = false;
  uint32_t applied_since_ack_ = 0;
  uint64_t bytes_since_ack_ = 0;
  uint32_t expected_send_msn_ = 1;
  uint32_t expected_read_msn_ = 1;
  uint32_t atomic_msn_ = 1;   // of our responses, QN 3
  uint32_t send_offset_ = 0;  // of the Send under way
  uint32_t write_bytes_ = 0;  // of the Write under way or, with its Immediate pending, done
  bool immediate_pending_ = false;
  // Refused `applied_rsn_ + 1`, until Resume. Unreliable: dropped it, to its last segment.
  bool dropping_ = false;
  bool rnr_nak_owed_ = false;
  bool ready_said_ = false;
  Ring<InboundRead> irq_;
  struct {
    bool owed = false;
    uint32_t rsn = 0;
    wire::NakCode code = wire::NakCode::kNone;
    wire::TerminateError error;
    std::string text;
    // The segment that is to blame: its header, and the body of a Read Request. Empty: none is.
    std::vector<std::byte> segment;
  } nak_;
  bool bye_owed_ = false;

  // --- stream
  std::unique_ptr<std::byte[]> rx_;
  size_t rx_begin_ = 0;
  size_t rx_end_ = 0;
  size_t direct_ = 0;  // bytes of the last ReceiveSpace that lie in the segment's targets
  Segment segment_;
  Recent target_region_, source_region_;
  TransmitBatch batch_;
  uint64_t left_ = 0;       // bytes that were sent, of this connection and those before it
  uint32_t batch_rsn_ = 0;  // last request that the batch finishes: foreign peers complete locally

  mutable SpinLock cause_lock_;
  absl::Status cause_;
  struct {
    Counter send_completions, receive_completions, bytes_sent, bytes_received, send_calls,
        receive_calls, acks_sent, acks_received, rnr_naks_sent, rnr_naks_received, remote_reads,
        remote_writes, remote_atomics, protection_errors, dropped_no_receive, dropped_other;
  } count_;
  std::atomic<uint64_t> sends_posted_{0};
};

}  // namespace verbena::engine
