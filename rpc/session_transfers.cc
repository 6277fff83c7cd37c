// SPDX-License-Identifier: Apache-2.0
// One-sided work of a session: bulk transfers, and messages that the peer offers by address.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/session.h"

namespace verbena::rpc {
namespace {

constexpr uint32_t kChunksOfOne = 8;   // in flight, of one transfer
constexpr size_t kFetchesAtOnce = 16;  // messages; each has memory of its own length

}  // namespace

void Transfer::Complete(const WorkCompletion& wc) { session->OperationDone(*this, wc); }

absl::Status Session::Begin(Transfer& transfer) {
  transfer.session = this;
  auto region = lane_.domain.Register(
      transfer.local, transfer.opcode == Opcode::kRead ? Access::kLocalWrite : Access::kLocalRead);
  if (!region.ok()) return region.status();
  transfer.region = *std::move(region);
  const std::lock_guard lock(lock_);
  if (ended()) return absl::UnavailableError("rpc: the connection has ended");
  transfers_.push_back(&transfer);
  while (!transfers_.empty() && PostChunkLocked(*transfers_.front())) {
  }
  return absl::OkStatus();
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
    while (!ended() && !transfers_.empty() && PostChunkLocked(*transfers_.front())) {
    }
    over = transfer.in_flight == 0 && !more;
  }
  if (over) {
    if (transfer.status.ok() && transfer.posted < transfer.local.size()) {
      transfer.status = absl::UnavailableError("rpc: the connection has ended");
    }
    transfer.region = {};
    transfer.done(transfer.status);
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
  transfer.region = {};
  transfer.done(transfer.status);
}

// Leader.
void Session::StartFetches() {
  while (!to_fetch_.empty() && fetches_.size() < kFetchesAtOnce) {
    auto fetch = std::make_unique<Fetch>();
    fetch->frame = to_fetch_.front();
    to_fetch_.pop_front();
    const uint32_t call = fetch->frame.call;
    const uint64_t length = fetch->frame.carried();
    fetch->bytes.reset(new std::byte[length]);
    fetch->transfer.remote = fetch->frame.lent;
    fetch->transfer.local = {fetch->bytes.get(), length};
    fetch->transfer.done = [this, call](const absl::Status& status) { Fetched(call, status); };
    auto [at, is_new] = fetches_.try_emplace(call, std::move(fetch));
    if (!is_new) {
      End(absl::InternalError("rpc: the peer offered two messages of one call"));
      return;
    }
    if (auto status = Begin(at->second->transfer); !status.ok()) return End(status);
  }
}

void Session::Fetched(uint32_t call, const absl::Status& status) {
  const auto found = fetches_.find(call);
  const std::unique_ptr<Fetch> fetch = std::move(found->second);
  fetches_.erase(found);
  if (ended()) return;
  if (!status.ok()) {
    End(status);
    return;
  }
  {
    const std::lock_guard lock(lock_);
    counters_.fetched_bytes += fetch->frame.carried();
  }
  (void)Send({.kind = FrameKind::kFetched, .call = call});
  FlushSoon();
  if (!fetch->dropped) {
    const char* wrong = user_.OnFrame(*this, fetch->frame, fetch->transfer.local);
    if (wrong != nullptr) {
      End(absl::InternalError(absl::StrCat("rpc: the peer sent ", wrong, "; disconnected")));
      return;
    }
  }
  StartFetches();
}

bool Session::DropFetch(uint32_t call) {
  if (const auto found = fetches_.find(call); found != fetches_.end()) {
    found->second->dropped = true;
    return true;
  }
  const auto waits = std::find_if(to_fetch_.begin(), to_fetch_.end(),
                                  [call](const Frame& frame) { return frame.call == call; });
  if (waits == to_fetch_.end()) return false;
  to_fetch_.erase(waits);
  (void)Send({.kind = FrameKind::kFetched, .call = call});
  FlushSoon();
  return true;
}

}  // namespace verbena::rpc
