// SPDX-License-Identifier: Apache-2.0
// Posting on an iWARP device: in turns, and with what IwarpSends puts behind a request.
#include <algorithm>

#include "verbs/completion.h"
#include "verbs/forms.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

constexpr uint32_t kTogether = 16;  // requests that one call of the driver gets
constexpr uint32_t kSges = 64;      // and their entries; at least what one request may have

}  // namespace

// False: the state has changed since `may` was read, and the places are given back.
bool QueuePair::TakeTurn(Ledger* ledger, uint64_t first, uint32_t places, uint8_t may) {
  ledger->AwaitTurn(first);
  if (may_post_.load(std::memory_order_seq_cst) == may) [[likely]]
    return true;
  ledger->PassTurn(first, 0, places);
  return false;
}

void QueuePair::LeaveTurn(Ledger* ledger, uint64_t first, uint32_t used, uint32_t places) {
  if (iwarp_ != nullptr) [[unlikely]]
    return ledger->PassTurn(first, used, places);
  ledger->GiveBack(first, used, places);
}

PostResult QueuePair::PostOnIwarp(std::span<const SendWr> requests) {
  PostResult result;
  iwarp_->Prepare(requests);
  const uint8_t may = may_post_.load(std::memory_order_acquire);
  if ((may & kSends) == 0) return {0, Refusal()};
  if ((may & kKeeps) != 0) [[unlikely]]
    return KeepSends(requests);
  while (result.accepted < requests.size() && result.ok()) {
    ibv_send_wr work[2 * kTogether + kSges];  // the device gets more than one for some
    ibv_sge sges[kSges];
    const SendWr* const wanted = &requests[result.accepted];
    const size_t left = requests.size() - result.accepted;
    uint64_t first = 0;
    const uint32_t places =
        send_ledger_->Reserve(static_cast<uint32_t>(std::min<size_t>(left, kTogether)), &first);
    if (places == 0) {
      result.error = PostError::kQueueFull;
      break;
    }
    if (!TakeTurn(send_ledger_, first, places, may)) [[unlikely]] {
      const PostResult rest = PostOnIwarp(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
    uint32_t n = 0, used = 0, built = 0;
    bool wait = false;
    // A request that is built to fail has an entry though it was posted with none.
    for (; n < places && used + std::max<size_t>(wanted[n].local.size(), 1) <= kSges; ++n) {
      if (!MayStart(wanted[n], first + n)) [[unlikely]] {
        wait = true;
        break;
      }
      result.error = Build(wanted[n], first + n, &work[built], &sges[used]);
      if (!result.ok()) break;
      used += static_cast<uint32_t>(work[built].num_sge);
      if (built > 0) work[built - 1].next = &work[built];
      ++built;
      built += iwarp_->Finish(&work[built - 1]);
    }
    if (n == 0 && result.ok() && !wait) result.error = PostError::kTooManySges;
    uint32_t taken = 0;
    if (n > 0) {
      ibv_send_wr* bad = nullptr;
      const int error = ibv_post_send(qp_, work, &bad);
      taken = Taken(error, work, bad, built);
      if (taken < built) result.error = PostErrorOf(error);
      taken = IwarpSends::Requests(work, taken);
    }
    send_ledger_->Posted(first, taken);
    send_ledger_->PassTurn(first, taken, places);
    result.accepted += taken;
    if (wait && result.ok()) [[unlikely]] {
      const PostResult rest = Wait(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
  }
  return result;
}

}  // namespace verbena::verbs
