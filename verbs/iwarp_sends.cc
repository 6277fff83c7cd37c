// SPDX-License-Identifier: Apache-2.0
#include "verbs/iwarp_sends.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "verbs/forms.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

constexpr absl::Duration kLookSoon = absl::Milliseconds(1);  // while a send queue drains
constexpr uint32_t kMostEntries = 32;

}  // namespace

int IwarpSends::CopyEntries(const SgeList& from, ibv_sge* to) {
  int count = 0;
  for (const Sge& entry : from) {
    if (entry.length > 0) to[count++] = *AsTheDrivers(&entry);
  }
  return count;
}

ibv_sge* IwarpSends::Nothing() {
  static ibv_sge nothing{};
  return &nothing;
}

void IwarpSends::Prepare(std::span<const SendWr> requests) const {
  for (const SendWr& wr : requests) {
    if (wr.opcode != Opcode::kRead) continue;
    for (const Sge& entry : wr.local) {
      if (entry.length > 0) domain_->PrepareSink(entry.key);
    }
  }
}

// Reads are answered in order, so a fence tells them nothing new; siw refuses it. A read of no
// bytes is made one that brings nothing (IwarpDomain says why).
uint32_t IwarpSends::FinishRead(ibv_send_wr* work) const {
  work->send_flags &= ~static_cast<unsigned>(IBV_SEND_FENCE);
  for (int i = 0; i < work->num_sge; ++i) {
    // 0: the region was closed after the request was built.
    const uint32_t sink = domain_->keys().Sink(work->sg_list[i].lkey);
    if (sink != 0) work->sg_list[i].lkey = sink;
  }
  if (work->num_sge == 0) {
    const unsigned flags = work->send_flags;
    *work = Probe(work->wr_id);
    work->send_flags = flags;
    return 0;
  }
  const uint32_t more = static_cast<uint32_t>(work->num_sge) - 1;
  work->num_sge = 1;
  for (uint32_t i = 0; i < more; ++i) {
    work[i + 1] = work[i];
    work[i].send_flags &= ~static_cast<unsigned>(IBV_SEND_SIGNALED);
    work[i].next = &work[i + 1];
    work[i + 1].wr.rdma.remote_addr += work[i].sg_list->length;
    ++work[i + 1].sg_list;
  }
  return more;
}

uint32_t IwarpSends::Confirm(ibv_send_wr* work) const {
  work[1] = Probe(work->wr_id);
  work[1].send_flags = work->send_flags & static_cast<unsigned>(IBV_SEND_SIGNALED);
  work->send_flags &= ~static_cast<unsigned>(IBV_SEND_SIGNALED);
  work->next = &work[1];
  return 1;
}

ibv_send_wr IwarpSends::Probe(uint64_t name) const {
  ibv_send_wr read{};
  read.wr_id = name;
  read.opcode = IBV_WR_RDMA_READ;
  read.sg_list = peer_.known ? domain_->sink() : Nothing();
  read.num_sge = 1;
  read.send_flags = IBV_SEND_SIGNALED;
  read.wr.rdma.remote_addr = peer_.address;
  read.wr.rdma.rkey = peer_.key;
  return read;
}

uint32_t IwarpSends::Requests(const ibv_send_wr* work, uint32_t count) {
  uint32_t requests = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (i == 0 || work[i].wr_id != work[i - 1].wr_id) ++requests;
  }
  return requests;
}

bool IwarpSends::MayStart(bool read, bool fenced, uint64_t position, const Ledger& ledger) const {
  const uint64_t done = ledger.completed();
  const auto outstanding = static_cast<int64_t>(position - done);
  const uint64_t behind_reads = read_end_.load(std::memory_order_acquire);
  const bool reads = static_cast<int64_t>(behind_reads - ledger.Name(done)) > 0;
  if (fenced && reads) return outstanding <= 0;
  return !(confirms_ || read) || outstanding < depth();
}

bool QueuePair::MayStart(const SendWr& wr, uint64_t position) const {
  const bool read = wr.opcode == Opcode::kRead;
  if (!iwarp_->MayStart(read, Has(wr.flags, SendFlags::kFence), position, *send_ledger_)) {
    return false;
  }
  if (read) iwarp_->NoteRead(send_ledger_->Name(position));
  return true;
}

// The first of `requests` has to wait.
PostResult QueuePair::Wait(std::span<const SendWr> requests) {
  {
    const std::lock_guard lock(device_->service().mutex());
    if (state_ == QpState::kRts && !iwarp_->waiting()) {
      iwarp_->set_waiting(true);
      SetState(state_);
      send_ledger_->KeepFrom(send_ledger_->posted());
    }
  }
  const PostResult result = KeepSends(requests);
  const std::lock_guard lock(device_->service().mutex());
  if (state_ == QpState::kRts) ReleaseSends();
  return result;
}

// In SQD and in ERR, and while others wait.
PostResult QueuePair::KeepSends(std::span<const SendWr> requests) {
  PostResult result;
  {
    std::unique_lock lock(device_->service().mutex());
    if (state_ != QpState::kSqd && state_ != QpState::kErr && !iwarp_->waiting()) {
      lock.unlock();  // it has changed meanwhile
      return PostSend(requests);
    }
    while (result.accepted < requests.size()) {
      const SendWr& wr = requests[result.accepted];
      const std::lock_guard turn(send_turn_);
      uint64_t position = 0;
      if (send_ledger_->Reserve(1, &position) == 0) {
        result.error = PostError::kQueueFull;
        break;
      }
      IwarpSends::Held held;
      held.position = position;
      held.read = wr.opcode == Opcode::kRead;
      held.fenced = Has(wr.flags, SendFlags::kFence);
      held.entries.resize(kMostEntries);
      held.work.resize(kMostEntries);
      result.error = Build(wr, position, &held.work[0], held.entries.data());
      if (!result.ok()) {
        send_ledger_->GiveBack(position, 0, 1);
        break;
      }
      send_ledger_->Posted(position);
      ++result.accepted;
      if (state_ == QpState::kErr) continue;
      if ((held.work[0].send_flags & IBV_SEND_INLINE) != 0) {
        for (int i = 0; i < held.work[0].num_sge; ++i) {
          const auto* from = reinterpret_cast<const std::byte*>(held.entries[i].addr);
          held.copied.insert(held.copied.end(), from, from + held.entries[i].length);
        }
      }
      iwarp_->held().push_back(std::move(held));
    }
    if (state_ != QpState::kErr) return result;
  }
  if (result.accepted > 0) send_cq_->FlushNow();
  return result;
}

PostResult QueuePair::KeepReceives(std::span<const ReceiveWr> requests) {
  PostResult result;
  {
    std::unique_lock lock(device_->service().mutex());
    if (state_ != QpState::kErr) {
      lock.unlock();  // it has changed meanwhile
      return PostReceive(requests);
    }
    for (const ReceiveWr& wr : requests) {
      const std::lock_guard turn(receive_turn_);
      uint64_t position = 0;
      if (wr.local.size() > limits_.max_receive_sge) result.error = PostError::kTooManySges;
      if (result.ok() && receive_ledger_->Reserve(1, &position) == 0) {
        result.error = PostError::kQueueFull;
      }
      if (!result.ok()) break;
      receive_ledger_->at(position).Begin(wr.id, {.completes = WcOpcode::kReceive});
      receive_ledger_->Posted(position);
      ++result.accepted;
    }
  }
  if (result.accepted > 0) receive_cq_->FlushNow();
  return result;
}

// A confirmation is a read, and takes one of them in flight.
void QueuePair::SetConfirms(bool wanted) {
  if (iwarp_ == nullptr) return;
  iwarp_->set_confirms(wanted);
  if (wanted) parameters_.initiator_depth = std::max(parameters_.initiator_depth, 1u);
}

std::string QueuePair::PrivateData(const std::string& application) const {
  return iwarp_ == nullptr ? application : WithConfirmation(application, domain_->iwarp()->lent());
}

int QueuePair::HoldSends() {
  drained_ = false;
  SetState(QpState::kSqd);
  if (iwarp_->held().empty()) send_ledger_->KeepFrom(send_ledger_->posted());
  Probe();
  iwarp_->set_draining(true);
  device_->service().SetDeadline(this, absl::ZeroDuration());
  return 0;
}

// The last request that the device has may complete silently; then one more, which nobody sees,
// tells when it does.
void QueuePair::Probe() {
  uint64_t end = std::min(send_ledger_->kept_from(), send_ledger_->posted());
  while (end > 0 && send_ledger_->IsHole(end - 1)) --end;
  if (send_ledger_->completed() >= end || !send_ledger_->at(end - 1).known().quiet) return;
  if (!iwarp_->ProbeOnce(end)) return;
  ibv_send_wr probe = iwarp_->Probe(send_ledger_->Name(end - 1));
  ibv_send_wr* bad = nullptr;
  (void)ibv_post_send(qp_, &probe, &bad);  // fails if the connection has, which is told otherwise
}

// By the service, as long as something waits. False: nothing does.
bool QueuePair::LookForHeld() {
  const bool draining = iwarp_->draining() && state_ == QpState::kSqd;
  const bool waiting = iwarp_->waiting() && state_ == QpState::kRts;
  if (!draining && !waiting) return false;
  (void)send_cq_->TryPull();
  if (waiting) {
    if (iwarp_->waiting()) ReleaseSends();
  } else if (send_ledger_->completed() < send_ledger_->kept_from() &&
             send_ledger_->outstanding() > 0) {
    device_->service().SetDeadline(this, kLookSoon);
  } else {
    iwarp_->set_draining(false);
    Drained();
  }
  return true;
}

int QueuePair::ReleaseSends() {
  iwarp_->set_draining(false);
  std::deque<IwarpSends::Held>& held = iwarp_->held();
  for (; !held.empty(); held.pop_front()) {
    IwarpSends::Held& first = held.front();
    if (!iwarp_->MayStart(first.read, first.fenced, first.position, *send_ledger_)) break;
    if (first.read) iwarp_->NoteRead(send_ledger_->Name(first.position));
    ibv_send_wr* const work = first.work.data();
    work->sg_list = first.entries.data();
    work->next = nullptr;
    if (!first.copied.empty()) {
      first.entries[0] = {.addr = reinterpret_cast<uint64_t>(first.copied.data()),
                          .length = static_cast<uint32_t>(first.copied.size()),
                          .lkey = 0};
      work->num_sge = 1;
    }
    iwarp_->Finish(work);
    ibv_send_wr* bad = nullptr;
    // A driver that refuses has lost the connection; then all is flushed from here.
    (void)ibv_post_send(qp_, work, &bad);
  }
  iwarp_->set_waiting(!held.empty());
  send_ledger_->KeepFrom(held.empty() ? ~uint64_t{0} : held.front().position);
  if (state_ == QpState::kRts) SetState(state_);
  if (held.empty()) return 0;
  Probe();
  send_cq_->LookForRoom();
  device_->service().SetDeadline(this, kLookSoon);
  return 0;
}

// From now on the device gets nothing more. `refused`: the first request that the device flushes
// is the one that the peer refused; it does not say more.
void QueuePair::KeepAll(bool refused) {
  send_ledger_->KeepFrom(std::min(send_ledger_->kept_from(), send_ledger_->posted()));
  if (!refused) send_ledger_->BlameNone();
  iwarp_->held().clear();
  iwarp_->set_draining(false);
  iwarp_->set_waiting(false);
  send_cq_->FlushSoon();
  receive_cq_->FlushSoon();
}

// The completions that the device had were taken. If it has flushed, what is still outstanding
// completes here.
void QueuePair::OnPoll(CompletionQueue* cq) {
  if (iwarp_ == nullptr) return;
  if (state_ == QpState::kRts && iwarp_->waiting()) ReleaseSends();
  if (state_ != QpState::kErr) return;
  if (send_cq_ == cq) Flush(send_ledger_, cq);
  if (receive_cq_ == cq && srq_ == nullptr) Flush(receive_ledger_, cq);
}

void QueuePair::Flush(Ledger* ledger, CompletionQueue* cq) {
  const bool sends = ledger->kind() == Ledger::Kind::kSend;
  const uint64_t end = ledger->posted();
  for (uint64_t at = ledger->oldest(); at < end; ++at) {
    if (ledger->IsHole(at)) continue;
    Ledger::Place& place = ledger->at(at);
    const Facts known = place.known();
    const bool failed = (known.state & Ledger::kFailed) != 0;
    // A request that was to complete silently has done so, unless the device says no, or never
    // got it.
    const bool silent = sends && known.quiet && !failed && at < ledger->kept_from();
    if (silent || (place.Add(Ledger::kFinished) & Ledger::kFinished) != 0) continue;
    WorkCompletion wc;
    wc.id = place.id;
    wc.qp_number = number_;
    wc.opcode = known.completes;
    wc.status = WcStatus::kFlushed;
    if (sends && !ledger->blameless() && at < ledger->kept_from()) {
      wc.status = failed && known.fails_as != WcStatus::kSuccess ? known.fails_as
                                                                 : WcStatus::kRemoteOperationError;
      CompletionFailed(wc.status, WcOpcodeName(wc.opcode), place.key_or_next);
      ledger->BlameNone();
    }
    cq->StashOne(ledger->Name(at), wc);
    ledger->Done(ledger->Name(at));
  }
}

// iWARP queue pairs live once: ERR is final in the drivers. So RESET makes a new one.
int QueuePair::Remake() {
  iwarp_->held().clear();
  iwarp_->set_draining(false);
  iwarp_->set_waiting(false);
  ibv_qp* const former = qp_;
  const uint32_t number = number_;
  if (!MakeDeviceQueuePair()) {
    qp_ = former;
    return errno;
  }
  device_->Leave(number);
  return Lib().destroy_qp(former);
}

}  // namespace verbena::verbs
