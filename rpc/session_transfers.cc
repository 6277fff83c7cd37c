// SPDX-License-Identifier: Apache-2.0
// One-sided work of a session: bulk transfers, and messages that the peer offers by address.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/session.h"

namespace verbena::rpc {
namespace {

constexpr uint32_t kChunksOfOne = 8;           // in flight, of one transfer
constexpr size_t kFetchesAtOnce = 16;          // messages; each has memory of its own length
constexpr size_t kMostWaitingBytes = 4 << 20;  // of short messages behind long ones

}  // namespace

// It may be gone when `done` returns, or begun anew.
void Session::EndTransfer(Transfer& transfer) {
  transfer.region = {};
  const auto done = std::move(transfer.done);
  const absl::Status status = transfer.status;
  done(status);
}

void Transfer::Complete(const WorkCompletion& wc) { session->OperationDone(*this, wc); }

absl::Status Session::Begin(Transfer& transfer, bool* posted) {
  transfer.session = this;
  auto region = lane_.domain.Register(
      transfer.local, transfer.opcode == Opcode::kRead ? Access::kLocalWrite : Access::kLocalRead);
  if (!region.ok()) return region.status();
  transfer.region = *std::move(region);
  const std::lock_guard lock(lock_);
  if (ended()) return absl::UnavailableError("rpc: the connection has ended");
  transfers_.push_back(&transfer);
  PostChunksLocked();
  if (posted != nullptr) *posted = transfer.posted == transfer.local.size();
  return absl::OkStatus();
}

// As many as the queue pair takes. What it does not take is tried again when one of them, or a
// send, is done.
void Session::PostChunksLocked() {
  while (!ended() && !transfers_.empty() && PostChunkLocked(*transfers_.front())) {
  }
}

// Of the transfer in front; it goes to the back, or leaves, when it has had its turn. False: no
// chunk can be posted now.
bool Session::PostChunkLocked(Transfer& transfer) {
  if (operations_.load() >= kOperationsInFlight) return false;
  const uint64_t length = std::min<uint64_t>(transfer.local.size() - transfer.posted, kChunkBytes);
  const PostResult result =
      qp_.PostSend({.opcode = transfer.opcode,
                    .local = transfer.region.slice(transfer.posted, static_cast<uint32_t>(length)),
                    .remote = transfer.remote.at(transfer.posted),
                    .id = IdOf(&transfer),
                    .flags = SendFlags::kSignaled});
  if (!result.ok()) return false;
  transfer.posted += length;
  ++transfer.in_flight;
  operations_.fetch_add(1);
  transfers_.pop_front();
  if (transfer.posted == transfer.local.size() || transfer.in_flight >= kChunksOfOne) return true;
  transfers_.push_back(&transfer);
  return true;
}

void Session::OperationDone(Transfer& transfer, const WorkCompletion& wc) {
  bool over = false;
  {
    const std::lock_guard lock(lock_);
    const bool was_waiting = transfer.in_flight < kChunksOfOne &&
                             transfer.posted < transfer.local.size() && transfer.status.ok();
    --transfer.in_flight;
    operations_.fetch_sub(1);
    if (wc.ok()) {
      if (transfer.in_flight == 0 && transfer.posted == transfer.local.size()) {
        counters_.transferred_bytes += transfer.posted;
      }
    } else if (transfer.status.ok()) {
      const absl::Status cause = qp_.cause();
      transfer.status =
          absl::UnavailableError(absl::StrCat("rpc: bulk transfer: ", wc.ToStatus().message(),
                                              cause.ok() ? "" : "; ", cause.message()));
      if (was_waiting) std::erase(transfers_, &transfer);
    }
    const bool more = transfer.posted < transfer.local.size() && transfer.status.ok() && !ended();
    if (more && !was_waiting) transfers_.push_back(&transfer);
    PostChunksLocked();
    over = transfer.in_flight == 0 && !more;
  }
  if (over) {
    if (transfer.status.ok() && transfer.posted < transfer.local.size()) {
      transfer.status = absl::UnavailableError("rpc: the connection has ended");
    }
    EndTransfer(transfer);
  }
  if (quiet()) user_.OnQuiet(*this);
}

void Session::Abandon(Transfer& transfer, const absl::Status& why) {
  {
    const std::lock_guard lock(lock_);
    if (transfer.status.ok()) transfer.status = why;
    std::erase(transfers_, &transfer);
    if (transfer.in_flight > 0) return;  // its last completion ends it
  }
  EndTransfer(transfer);
}

// Leader, as all below.
const char* Session::Enqueue(const Frame& frame, std::span<const std::byte> carried) {
  auto& line = lines_[frame.call];
  if (line == nullptr) {
    line = std::make_unique<Line>();
    to_fetch_.push_back(frame.call);
  }
  if (line->dropped) {
    SayFetched(frame);
    return nullptr;
  }
  waiting_bytes_ += carried.size() + kFrameHeader;
  if (waiting_bytes_ > kMostWaitingBytes) return "more behind a long message than may wait there";
  line->frames.push_back({.frame = frame, .bytes = {carried.begin(), carried.end()}, .share = {}});
  StartFetches();
  return nullptr;
}

void Session::SayFetched(const Frame& frame) {
  if (!frame.by_address) return;
  (void)Send({.kind = FrameKind::kFetched, .call = frame.call, .code = frame.lent_number});
  FlushSoon();
}

void Session::StartFetches() {
  while (!to_fetch_.empty() && fetching_ < kFetchesAtOnce && !ended()) {
    const uint32_t call = to_fetch_.front();
    to_fetch_.pop_front();
    Line& line = *lines_[call];
    Waiting& first = line.frames.front();
    if (budget_ != nullptr && !(first.share = budget_->Take(first.frame.carried()))) {
      SayFetched(first.frame);
      DeliverLine(call);
      continue;
    }
    first.bytes.resize(first.frame.carried());
    line.transfer = {};
    line.transfer.remote = first.frame.lent;
    line.transfer.local = first.bytes;
    line.transfer.done = [this, call](const absl::Status& status) { Fetched(call, status); };
    ++fetching_;
    if (auto status = Begin(line.transfer); !status.ok()) return End(status);
  }
}

void Session::Fetched(uint32_t call, const absl::Status& status) {
  --fetching_;
  if (ended()) return;
  if (!status.ok()) return End(status);
  const auto found = lines_.find(call);
  Line& line = *found->second;
  {
    const std::lock_guard lock(lock_);
    counters_.fetched_bytes += line.frames.front().frame.carried();
  }
  SayFetched(line.frames.front().frame);
  DeliverLine(call);
  StartFetches();
}

// Its first frame, read or not, and those behind it up to one that is to be read.
void Session::DeliverLine(uint32_t call) {
  Line& line = *lines_.find(call)->second;
  const char* wrong = nullptr;
  do {
    Waiting next = std::move(line.frames.front());
    line.frames.pop_front();
    next.share = {};  // from here on the user's to count
    waiting_bytes_ -= kFrameHeader + (next.frame.by_address ? 0 : next.bytes.size());
    if (!line.dropped) wrong = user_.OnFrame(*this, next.frame, next.bytes);
    if (wrong != nullptr) {
      return End(absl::InternalError(absl::StrCat("rpc: the peer sent ", wrong, "; disconnected")));
    }
    if (ended()) return;
  } while (!line.frames.empty() && !line.frames.front().frame.by_address);
  if (line.frames.empty()) {
    lines_.erase(call);
  } else {
    to_fetch_.push_back(call);
  }
}

bool Session::DropWaiting(uint32_t call) {
  const auto found = lines_.find(call);
  if (found == lines_.end() || found->second->dropped) return false;
  Line& line = *found->second;
  const bool had_request = line.frames.front().frame.kind == FrameKind::kRequest;
  line.dropped = true;
  // The first may be under way; its end ends the line.
  while (line.frames.size() > 1) {
    const Waiting& last = line.frames.back();
    SayFetched(last.frame);
    waiting_bytes_ -= kFrameHeader + last.bytes.size();
    line.frames.pop_back();
  }
  return had_request;
}

}  // namespace verbena::rpc
