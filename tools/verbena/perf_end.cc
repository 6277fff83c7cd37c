// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/perf_end.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/verbena/link.h"

namespace verbena::tool {
namespace {

constexpr uint32_t kSpareSends = 32;  // ping-pongs poll their own completions now and then only
constexpr uint32_t kSpareReceives = 4;

// What a request's number says: how many operations complete with it, and on which queue pair.
uint64_t Id(uint32_t operations, uint32_t index) { return uint64_t{operations} << 32 | index; }

bool IsFlood(const PerfRequest& request) { return request.mode != PerfMode::kLatency; }

}  // namespace

absl::StatusOr<std::unique_ptr<PerfEnd>> PerfEnd::Make(Device& device, const PerfRequest& request,
                                                       const PerfPosting& posting,
                                                       absl::Duration patience) {
  auto end = std::make_unique<PerfEnd>();
  end->request_ = request;
  end->posting_ = posting;
  end->patience_ = patience;
  end->layout_ = PerfLayout(request.size);
  end->flying_.resize(request.queue_pairs);
  end->owed_.resize(request.queue_pairs);
  absl::StatusOr<ProtectionDomain> pd = device.AllocateProtectionDomain();
  if (!pd.ok()) return pd.status();
  end->pd_ = *std::move(pd);
  Access access = Access::kLocalWrite | Access::kRemoteRead | Access::kRemoteWrite;
  if (request.op == PerfOp::kAtomic) access = access | Access::kRemoteAtomic;
  absl::StatusOr<Buffer> data = Buffer::Make(end->pd_, end->layout_.total(), access);
  if (!data.ok()) return data.status();
  end->data_ = *std::move(data);
  if (absl::Status status = end->MakeQueues(device); !status.ok()) return status;
  end->progressed_ = Clock::now();
  return end;
}

absl::Status PerfEnd::MakeQueues(Device& device) {
  uint32_t receives = kSpareReceives;
  if (posting_.server && request_.op == PerfOp::kSend && IsFlood(request_)) {
    // Twice the window, so that a sender seldom finds no receive.
    restock_at_ = std::clamp<uint32_t>(request_.window / 2, 1, 64);
    receives += 2 * request_.window + restock_at_;
  }
  const uint32_t sends = request_.window + kSpareSends;
  CqOptions cq_options;
  cq_options.entries = static_cast<uint32_t>(
      std::min<uint64_t>(uint64_t{request_.queue_pairs} * (sends + receives) + 16, UINT32_MAX));
  if (request_.events) {
    absl::StatusOr<CompletionChannel> channel = device.CreateCompletionChannel();
    if (!channel.ok()) return channel.status();
    channel_ = *std::move(channel);
    cq_options.channel = &channel_;
  }
  absl::StatusOr<CompletionQueue> cq = device.CreateCompletionQueue(cq_options);
  if (!cq.ok()) return cq.status();
  cq_ = *std::move(cq);
  receive_batch_.assign(64, {});
  QueuePairOptions options{.send_cq = &cq_, .receive_cq = &cq_};
  options.limits.max_send_wr = sends;
  options.limits.max_receive_wr = receives;
  options.signal = posting_.last_only ? Signal::kSelective : Signal::kAll;
  for (uint32_t i = 0; i < request_.queue_pairs; ++i) {
    absl::StatusOr<QueuePair> qp = pd_.CreateQueuePair(options);
    if (!qp.ok()) return qp.status();
    qps_.push_back(*std::move(qp));
    owed_[i] = receives;
    if (!Restock(i)) return status_;
  }
  return absl::OkStatus();
}

// Every operation uses the same memory, as other verbs benchmarks do.
void PerfEnd::Prepare(uint32_t size) {
  size_ = size;
  SendWr one{.opcode = Opcode::kSend, .local = data_.slice(layout_.source(), size)};
  if (request_.op == PerfOp::kWrite) {
    one.opcode = Opcode::kWrite;
    one.remote = peer_.at(layout_.landing());
  } else if (request_.op == PerfOp::kRead) {
    one.opcode = Opcode::kRead;
    one.local = data_.slice(layout_.landing(), size);
    one.remote = peer_.at(layout_.source());
  } else if (request_.op == PerfOp::kAtomic) {
    one.opcode = posting_.swap ? Opcode::kCompareSwap : Opcode::kFetchAdd;
    one.local = data_.slice(layout_.landing(), kAtomicBytes);
    one.remote = peer_.at(layout_.source());
    one.atomic = posting_.swap ? AtomicOperands{} : AtomicOperands{.compare_add = 1};
  }
  one.id = Id(1, 0);
  batch_.assign(posting_.list, one);
  batch_qp_ = 0;
  data_.bytes()[layout_.landing() + size - 1] = std::byte{0};
}

bool PerfEnd::Post(uint32_t index, uint32_t count) {
  SendWr& last = batch_[count - 1];
  if (posting_.last_only) {
    last.flags = SendFlags::kSignaled;
    last.id = Id(count, index);
  } else if (batch_qp_ != index) {
    for (SendWr& each : batch_) each.id = Id(1, index);
    batch_qp_ = index;
  }
  const PostResult posted = qps_[index].PostSend(std::span(batch_).first(count));
  last.flags = SendFlags::kNone;
  flying_[index] += count;
  if (posted.ok()) [[likely]]
    return true;
  status_ = RefusedPost(index, posted);
  return false;
}

bool PerfEnd::Restock(uint32_t index) {
  if (receive_batch_qp_ != index || receive_batch_[0].local.size() == 0) {
    // Sends land where all data lands; else receives take only control messages.
    const Sge where = request_.op == PerfOp::kSend
                          ? data_.slice(layout_.landing(), static_cast<uint32_t>(layout_.area))
                          : data_.slice(layout_.heard(), kPerfControlBytes);
    std::fill(receive_batch_.begin(), receive_batch_.end(),
              ReceiveWr{.local = where, .id = Id(0, index)});
    receive_batch_qp_ = index;
  }
  while (owed_[index] > 0) {
    const uint32_t count = std::min<uint32_t>(owed_[index], receive_batch_.size());
    const PostResult posted = qps_[index].PostReceive(std::span(receive_batch_).first(count));
    if (!posted.ok()) [[unlikely]] {
      status_ = RefusedPost(index, posted);
      return false;
    }
    owed_[index] -= count;
  }
  return true;
}

absl::Status PerfEnd::RefusedPost(uint32_t index, const PostResult& refused) {
  const absl::Status cause = qps_[index].cause();
  const absl::Status why = cause.ok() ? refused.ToStatus() : cause;
  return absl::Status(why.code(), absl::StrCat("connection with ", qps_[index].connection().peer,
                                               ": ", why.message()));
}

bool PerfEnd::Turn() {
  const size_t count = cq_.Poll(done_);
  if (count > 0) [[likely]]
    return Account(count);
  count_ = 0;
  if (!request_.events) {
    // The clock costs as much as a poll.
    return (++idle_turns_ & 0xFFF) != 0 || CheckPatience();
  }
  if (!Nap(patience_)) return false;
  // A wake-up for nothing happens, where one armed and a completion came at the same moment.
  return count_ > 0 || CheckPatience();
}

bool PerfEnd::Nap(absl::Duration longest) {
  count_ = 0;
  if (!request_.events) {
    absl::StatusOr<std::vector<WorkCompletion>> done = cq_.Wait(1, longest);
    if (absl::IsDeadlineExceeded(done.status())) return true;
    if (!done.ok()) {
      status_ = done.status();
      return false;
    }
    done_[0] = done->front();
    return Account(1);
  }
  if (status_ = cq_.RequestNotify(); !status_.ok()) return false;
  // What came before the queue was armed makes no event.
  if (const size_t count = cq_.Poll(done_); count > 0) return Account(count);
  absl::StatusOr<CqEvent> event = channel_.Next(longest);
  if (!event.ok() && !absl::IsDeadlineExceeded(event.status())) {
    status_ = event.status();
    return false;
  }
  const size_t count = cq_.Poll(done_);
  return count == 0 || Account(count);
}

bool PerfEnd::Account(size_t count) {
  count_ = count;
  idle_turns_ = 0;
  for (size_t i = 0; i < count; ++i) {
    const WorkCompletion& done = done_[i];
    const uint32_t index = QpOf(done);
    if (!done.ok()) [[unlikely]] {
      status_ = WhyFailed(qps_[index], done);
      return false;
    }
    if (done.opcode == WcOpcode::kReceive) {
      ++receives_;
      ++owed_[index];
      latest_ = index;
    } else {
      const auto operations = static_cast<uint32_t>(done.id >> 32);
      completed_ += operations;
      flying_[index] -= operations;
    }
  }
  return true;
}

bool PerfEnd::CheckPatience() {
  const Clock::time_point now = Clock::now();
  if (idle_turns_ <= 0x1000) {  // the first look since something happened
    progressed_ = now;
    idle_turns_ = 0x1000;
  }
  if (now - progressed_ < absl::ToChronoNanoseconds(patience_)) return true;
  status_ = absl::DeadlineExceededError(absl::StrCat(
      "nothing from the peer ", qps_[0].connection().peer, " for ", absl::FormatDuration(patience_),
      ". Is it stopped, or the network down? --timeout changes the bound."));
  return false;
}

uint8_t PerfEnd::Landed() const {
  std::byte& last = data_.bytes()[layout_.landing() + size_ - 1];
  return std::to_integer<uint8_t>(std::atomic_ref<std::byte>(last).load(std::memory_order_acquire));
}

void PerfEnd::Stamp(uint8_t stamp) {
  data_.bytes()[layout_.source() + size_ - 1] = std::byte{stamp};
}

bool PerfEnd::SendMessage(uint32_t index, uint32_t bytes) {
  const PostResult posted = qps_[index].PostSend({.opcode = Opcode::kSend,
                                                  .local = data_.slice(layout_.said(), bytes),
                                                  .id = Id(0, index),
                                                  .flags = SendFlags::kSignaled});
  if (posted.ok()) return true;
  status_ = RefusedPost(index, posted);
  return false;
}

bool PerfEnd::Say(absl::string_view message) {
  std::byte* const out = data_.bytes().data() + layout_.said();
  memcpy(out, message.data(), std::min<size_t>(message.size(), kPerfControlBytes));
  return SendMessage(0, kPerfControlBytes);
}

absl::StatusOr<std::string> PerfEnd::Hear() {
  while (waiting() == 0) {
    if (!Turn()) return status_;
  }
  Take(1);
  const uint64_t where = request_.op == PerfOp::kSend ? layout_.landing() : layout_.heard();
  std::string message(reinterpret_cast<const char*>(data_.bytes().data()) + where,
                      kPerfControlBytes);
  if (!Restock(0)) return status_;
  return message;
}

}  // namespace verbena::tool
