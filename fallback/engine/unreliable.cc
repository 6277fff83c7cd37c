// SPDX-License-Identifier: Apache-2.0
// What is of unreliable connections alone: a responder that drops, and a requester that is told of
// nothing (docs/decisions/0023-unreliable-connections.md).
#include "absl/strings/str_cat.h"
#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

// IBTA 9.9.3, classes D and E: the request under way, or the one that begins, is dropped, to its
// last segment. A receive of the queue pair's own is for the next message; a shared one cannot go
// back, and completes (class E, as Soft-RoCE has it).
void QueuePair::Drop(Counter* counter) {
  counter->Add();
  dropping_ = true;
  ready_said_ = true;  // nobody waits for a receive
  GiveReceiveUp();
  if (segment_.kind == Segment::Kind::kNone) return;
  segment_.kind = Segment::Kind::kDiscard;
  segment_.held = 0;
}

void QueuePair::GiveReceiveUp() {
  if (receiving_ && config_.shared_receives != nullptr) {
    FailReceive(WcStatus::kRemoteInvalidRequest);
  }
}

void QueuePair::FinishDroppedSegment() {
  if ((segment_.ddp & wire::kLast) == 0) return;
  const bool write = wire::IsTagged(segment_.ddp);
  if (write && (segment_.rdmap & wire::kWithImmediate) != 0 &&
      session_.features.has(wire::kImmediate)) {
    immediate_pending_ = true;
    return;
  }
  if (!write) ++expected_send_msn_;
  EndMessage();
  Applied(segment_.rdmap, segment_.total);
}

void QueuePair::EndMessage() {
  dropping_ = immediate_pending_ = false;
  send_offset_ = write_bytes_ = 0;
}

// The peer could not go on with a message that it had begun (class D1). Its request number, and
// that of the queue, are the next one's.
void QueuePair::HandleAbandoned(uint32_t rsn) {
  if (rsn != applied_rsn_ + 1) {
    return ProtocolFault({"a Resume of another request than the next", wire::error::kUnspecified});
  }
  if (!dropping_) count_.dropped_other.Add();
  GiveReceiveUp();
  EndMessage();
}

// IBTA 10.3.1.6: a request that fails at this end stops the send queue, and nothing else. What was
// half sent is taken back.
void QueuePair::StopSends(WcStatus status) {
  if (!batch_.Detach()) return StreamLost("no memory for what is half sent");
  SetCause(absl::FailedPreconditionError(absl::StrCat(
      "qp 0x", absl::Hex(config_.number), ": a request failed at this end: ", WcStatusText(status),
      " Modify it to RTS to go on")));
  SetState(QpState::kSqe);
  const uint64_t head = sq_.head();
  SendEntry& failed = sq_.at(head);
  if (cursor_started_) {
    next_rsn_ = failed.rsn;
    rnr_.resume_owed = (cursor_offset_ > 0 || cursor_immediate_) && connected_ && !peer_left_;
    rnr_.rsn = failed.rsn;
  }
  Complete(failed, status);
  sq_.Retire(head + 1);
  FlushSends();
}

// The peer has gone, or has not come: what is sent now is lost, and nobody can say so.
void QueuePair::SendToNobody() {
  const uint64_t end = sq_.tail();
  session_.crc = false;
  do {
    batch_.Clear();
    acked_rsn_ = next_rsn_ - (cursor_started_ ? 2 : 1);
    Retire();
  } while ((cursor_ != end || cursor_started_) && AppendRequest());
  batch_.Clear();
  if (connected_) return;
  next_rsn_ = send_msn_ = 1;  // of the stream that may come
  acked_rsn_ = 0;
}

}  // namespace verbena::engine
