// SPDX-License-Identifier: Apache-2.0
// Polling whatever hot_path.cc does not: one call of the driver's function pointer for a batch,
// translation on the stack, no allocation, no lock of ours. What goes wrong is handled in cold
// functions.
#include <arpa/inet.h>

#include <algorithm>

#include "verbs/completion.h"

namespace verbena::verbs {

void CompletionQueue::Fail(const ibv_wc& wc, Ledger* ledger, const WorkCompletion& completion,
                           uint32_t key) {
  if (ledger->kind() != Ledger::Kind::kShared && !ledger->MarkFailed()) return;
  device_->ReportFailure(wc.qp_num, completion.status, WcOpcodeName(completion.opcode), key);
}

// A failed completion of an iWARP device. Of sends it only tells that they failed: not which one
// the peer refused, nor why, and the one that was under way comes before those that wait for their
// answer. So they are told by QueuePair::OnPoll, when the device has nothing more to say.
// False: not to be delivered.
bool CompletionQueue::JudgeOnIwarp(const Ledger& ledger, Ledger::Place* place,
                                   WorkCompletion* out) {
  if (ledger.kind() == Ledger::Kind::kSend) {
    place->Add(Ledger::kFailed);
    if (place->known().fails_as == WcStatus::kSuccess) {
      out->status = ledger.blameless() ? WcStatus::kFlushed : WcStatus::kRemoteOperationError;
    }
    FlushSoon();
    return false;
  }
  // siw's word for a receive that names memory it may not fill (siw_rdmap_complete).
  if (out->status == WcStatus::kGeneralError) out->status = WcStatus::kLocalProtectionError;
  return ledger.kind() == Ledger::Kind::kShared ||
         (place->Add(Ledger::kFinished) & Ledger::kFinished) == 0;
}

bool CompletionQueue::TellsSender(const Ledger& ledger, const Facts& receive) const {
  if (ledger.kind() == Ledger::Kind::kReceive) return (receive.state & Ledger::kOdd) != 0;
  return (beside_.load(std::memory_order_acquire) & kSharedDatagrams) != 0;
}

// False: a completion of a queue pair that was closed or reset.
bool CompletionQueue::Translate(const ibv_wc& wc, For purpose, WorkCompletion* out) {
  Ledger* const ledger = device_->ledgers().Find(wc.wr_id);
  if (ledger == nullptr) return false;
  Ledger::Place& place = ledger->Of(wc.wr_id);
  const Facts known = place.known();
  *out = {};
  out->id = place.id;
  out->qp_number = wc.qp_num;
  const bool receive = ledger->kind() != Ledger::Kind::kSend;
  if (receive) {
    // Of a failed request only wr_id, status, qp_num and vendor_err are valid (ibv_poll_cq(3)).
    const bool write = wc.status == IBV_WC_SUCCESS && wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM;
    out->opcode = write ? WcOpcode::kReceiveWriteWithImm : WcOpcode::kReceive;
  } else {
    out->opcode = known.completes;
  }
  if (wc.status == IBV_WC_SUCCESS) [[likely]] {
    out->length = wc.byte_len;
    if (device_->iwarp()) [[unlikely]] {
      // Who flushed while this was on its way here has told it as flushed.
      if ((place.Add(Ledger::kFinished) & Ledger::kFinished) != 0) return false;
      if (!receive && known.quiet) {  // QueuePair::Probe
        ledger->Retire(wc.wr_id);
        return false;
      }
      if (known.completes == WcOpcode::kRead) out->length = place.length;
    }
    // Soft-RoCE passes the kernel's bit for WITH_INV through, which is IP_CSUM_OK to users.
    const unsigned invalidated =
        device_->software() ? IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK : IBV_WC_WITH_INV;
    if (receive && (wc.wc_flags & (IBV_WC_WITH_IMM | invalidated)) != 0) {
      out->has_immediate = (wc.wc_flags & IBV_WC_WITH_IMM) != 0;
      out->has_invalidated = !out->has_immediate;
      out->immediate_or_key = out->has_immediate ? ntohl(wc.imm_data) : wc.invalidated_rkey;
    }
    if (receive && TellsSender(*ledger, known)) {
      out->source_qp = wc.src_qp & 0xffffff;
      out->has_grh = (wc.wc_flags & IBV_WC_GRH) != 0;
    }
  } else {
    out->status = WcStatusOf(wc.status);
    if (known.fails_as != WcStatus::kSuccess && out->status != WcStatus::kFlushed) {
      out->status = known.fails_as;
    }
    // Soft-RoCE's word for a local key, bounds or access that is wrong (rxe_requester, and
    // RESPST_ERR_MALFORMED_WQE in rxe_responder); what else it stands for is refused at the post.
    if (out->status == WcStatus::kLocalQpOperationError && device_->software()) {
      out->status = WcStatus::kLocalProtectionError;
    }
    out->vendor_error = wc.vendor_err;
    const bool deliver = !device_->iwarp() || JudgeOnIwarp(*ledger, &place, out);
    Fail(wc, ledger, *out, receive ? 0 : place.key_or_next);
    if (!deliver) return false;
  }
  if (purpose == For::kDelivery || ledger->kind() == Ledger::Kind::kShared) {
    ledger->Retire(wc.wr_id);
  } else {
    ledger->Done(wc.wr_id);
  }
  return true;
}

// At most kPollBatch, and the names of their requests.
size_t CompletionQueue::PollDevice(std::span<WorkCompletion> out, For purpose, uint64_t* names,
                                   bool* more) {
  ibv_wc wc[kPollBatch];
  const int room = static_cast<int>(std::min(out.size(), kPollBatch));
  const int got = ibv_poll_cq(cq_, room, wc);
  if (got < 0) [[unlikely]]
    PollFailed(got);
  size_t n = 0;
  for (int i = 0; i < got; ++i) {
    names[n] = wc[i].wr_id;
    n += Translate(wc[i], purpose, &out[n]) ? 1 : 0;
  }
  if (n > 0) completions_.fetch_add(n, std::memory_order_relaxed);
  *more = got == room;
  return n;
}

size_t CompletionQueue::PollInBatches(std::span<WorkCompletion> out) {
  size_t n = 0, got = 0, asked = 0;
  do {
    asked = std::min(out.size() - n, kPollBatch);
    got = Poll(out.subspan(n, asked));
    n += got;
  } while (got == asked && n < out.size());
  return n;
}

// The first `n` completions are in `out`, and there may be others in the stash.
size_t CompletionQueue::PollAround(std::span<WorkCompletion> out, size_t n, const uint64_t* names) {
  if (n == 0 || (beside_.load(std::memory_order_acquire) & (kStashed | kPulling)) == 0) {
    return PollOn(out, n);
  }
  full_polls_.fetch_add(1, std::memory_order_relaxed);
  return StashAndUnstash(out, n, names);
}

// After the first `n` completions, which are in `out` already. Others may have taken completions to
// the stash before these and after the last look: a queue that is pulled from, or has a stash,
// after the device was asked.
size_t CompletionQueue::PollOn(std::span<WorkCompletion> out, size_t n) {
  bool more = true;
  while (more && n < out.size()) {
    if ((beside_.load(std::memory_order_acquire) & ~kSharedDatagrams) != 0) [[unlikely]] {
      if (const size_t stashed = Unstash(out.subspan(n)); stashed > 0) {
        n += stashed;
        break;
      }
    }
    uint64_t names[kPollBatch];
    const size_t got = PollDevice(out.subspan(n), For::kDelivery, names, &more);
    const uint32_t beside = beside_.load(std::memory_order_acquire);
    if ((beside & (kStashed | kPulling)) != 0 && got > 0) [[unlikely]] {
      n += StashAndUnstash(out.subspan(n), got, names);
      break;
    }
    n += got;
    if ((beside & kLost) != 0) more = true;
  }
  (n == 0 ? empty_polls_ : full_polls_).fetch_add(1, std::memory_order_relaxed);
  return n;
}

}  // namespace verbena::verbs
