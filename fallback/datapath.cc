// SPDX-License-Identifier: Apache-2.0
// The hot path of a queue pair: post, and the drive that moves bytes. No allocation, no lock held
// across a system call, no wait.
#include <sched.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "fallback/queue_pair.h"

namespace verbena::fallback {

namespace {
constexpr int kRoundsPerDrive = 8;          // of "look again"
constexpr int kCallsPerDrive = 8;           // of each direction, so that a drive stays short
constexpr Nanos kIdleAfter = 2'000'000;     // without traffic a hot queue pair becomes cold
constexpr Nanos kMssPeriod = 10'000'000;    // a path changes seldom, and is asked by a system call
constexpr Nanos kFarewell = 1'000'000'000;  // for the last words of a connection
}  // namespace

PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  const bool idle = engine_.outstanding() == 0;
  const PostResult result = engine_.PostSend(requests);
  if (result.accepted == 0) return result;
  // While answers are under way and somebody polls, more requests may share one send call: the next
  // poll sends them. Only a hot queue pair is driven by polls. If it cools down meanwhile, either
  // its owner sees "look again" before it lets go, or this thread sees that it is not hot.
  if (!idle && hot_.load(std::memory_order_relaxed) &&
      send_cq_->polled_just_now(device_->hub().Now()) && engine_.state() != QpState::kErr) {
    word_.fetch_or(kLookAgain, std::memory_order_seq_cst);
    if (hot_.load(std::memory_order_seq_cst)) return result;
  }
  Drive(Why::kPost);
  return result;
}

PostResult QueuePair::PostReceive(std::span<const ReceiveWr> requests) {
  bool wake = false;
  const PostResult result = engine_.PostReceive(requests, &wake);
  if (wake) Drive(Why::kPost);
  return result;
}

bool QueuePair::Drive(Why why) {
  uint32_t word = word_.load(std::memory_order_relaxed);
  do {
    if ((word & kDead) != 0) return true;
  } while (!word_.compare_exchange_weak(word, word | kOwned | kLookAgain, std::memory_order_seq_cst,
                                        std::memory_order_relaxed));
  if ((word & kOwned) != 0) return false;
  WorkAndRelease(why);
  return true;
}

void QueuePair::WorkAndRelease(Why why) {
  for (int round = 1;; ++round) {
    word_.fetch_and(~kLookAgain, std::memory_order_acq_rel);
    Work(why);
    uint32_t mine = kOwned;
    drives_.fetch_add(1, std::memory_order_seq_cst);
    // After this exchange the queue pair may be gone: nothing of it is touched any more.
    if (word_.compare_exchange_strong(mine, 0, std::memory_order_seq_cst)) return;
    if ((mine & kDead) != 0) {
      word_.fetch_and(~kOwned, std::memory_order_seq_cst);
      return;
    }
    if (round == kRoundsPerDrive) {  // others keep coming: this caller has done enough for them
      Hub* const hub = &device_->hub();
      const uint64_t id = Hub::IdOf(*this);
      word_.fetch_and(~kOwned, std::memory_order_seq_cst);
      hub->Poke(id);  // after letting go, or the service finds it owned and trusts the owner
      return;
    }
    why = Why::kReady;  // whoever left the mark may have come to receive
  }
}

void QueuePair::Work(Why why) {
  if ((word_.load(std::memory_order_relaxed) & kDead) != 0) return;
  const Nanos now = device_->hub().Now();
  if (failure_requested_.load(std::memory_order_relaxed) && failure_requested_.exchange(false)) {
    engine_.Fail(absl::ResourceExhaustedError("a completion queue of this queue pair overflowed"));
  }
  if (phase_ == Phase::kStreaming) {
    ServeStream(why, now);
  } else if (phase_ != Phase::kIdle) {
    ContinueConnect();
  }
  engine_.FlushPosted();
  has_unsent_.store(engine_.HasUnsent(), std::memory_order_seq_cst);
  if (drain_watched_.load(std::memory_order_seq_cst) && engine_.outstanding() == 0) {
    drain_watched_.store(false, std::memory_order_relaxed);
    device_->hub().world().Changed();
  }
}

void QueuePair::ServeStream(Why why, Nanos now) {
  if (why == Why::kPoll) ++served_;
  engine_.Tick(now);
  // Nobody may come again to a cold queue pair, so what it owes goes now; a poller comes back.
  bool idle = !hot_;
  if (why != Why::kPost) idle = ReceiveSome(why, now);
  SendSome(idle, now);
  if (engine_.state() == QpState::kErr && engine_.finished() && !engine_.HasUnsent()) {
    EndStream();
    return;
  }
  Nanos deadline = engine_.deadline();
  if (engine_.closing()) {
    if (!sent_farewell_) {
      sent_farewell_ = true;
      deadline_ = now + kFarewell;
    }
    deadline = std::min(deadline, deadline_);
  }
  device_->hub().SetDeadline(this, deadline);
  ChooseWatcher(why, now);
}

// Stops at a short read: asking again only to hear EAGAIN costs a call.
bool QueuePair::ReceiveSome(Why why, Nanos now) {
  std::array<iovec, engine::kMaxSge + 1> space;
  for (int i = 0; i < kCallsPerDrive; ++i) {
    const int count = engine_.ReceiveSpace(space.data(), static_cast<int>(space.size()));
    size_t want = 0;
    for (int k = 0; k < count; ++k) want += space[static_cast<size_t>(k)].iov_len;
    const ssize_t n = device_->hub().streams().Receive(
        socket_, std::span(space.data(), static_cast<size_t>(count)));
    if (n == -EAGAIN) return true;
    if (n == -EFAULT) {
      engine_.PlacementFailed();
      return true;
    }
    if (n <= 0) {
      engine_.ReceiveEnded(static_cast<int>(-n), now);
      return true;
    }
    last_traffic_ = now;
    engine_.Received(static_cast<size_t>(n), now);
    // A poller comes again at once, and may have something to say with the acknowledgement.
    if (static_cast<size_t>(n) < want) return why != Why::kPoll || !hot_;
  }
  return false;
}

void QueuePair::SendSome(bool idle, Nanos now) {
  want_write_ = false;
  if (engine_.within_mss() && now >= mss_due_) ReadMss(now);
  for (int i = 0; i < kCallsPerDrive; ++i) {
    const std::span<const iovec> v = engine_.Gather(idle, now);
    if (v.empty()) return;
    const ssize_t n = device_->hub().streams().Send(socket_, v);
    if (n == -EAGAIN) break;
    if (n < 0) {
      engine_.SendFailed(static_cast<int>(-n));
      // What the peer said before it went tells more than the errno.
      while (!ReceiveSome(Why::kReady, now)) {
      }
      return;
    }
    last_traffic_ = now;
    engine_.Sent(static_cast<size_t>(n));
    if (engine_.HasUnsent()) break;  // the socket is full
  }
  want_write_ = true;
}

// RFC 5044 4.5: FPDUs follow the MSS, and that the path, whose MTU may change at any time.
void QueuePair::ReadMss(Nanos now) {
  mss_due_ = now + kMssPeriod;
  engine_.SetMss(device_->hub().streams().MaxSegment(socket_));
}

void QueuePair::OnReady(bool, bool) {
  connectable_.store(true, std::memory_order_release);  // an error shows as readable
  // The level is reported again at once: on a single core that would starve the owner.
  if (!Drive(Why::kReady)) sched_yield();
}

void QueuePair::OnDeadline() {
  if (TryOwn()) {
    if (phase_ == Phase::kStreaming && engine_.closing() && device_->hub().Now() >= deadline_) {
      DropStream();
    } else if (phase_ != Phase::kIdle && phase_ != Phase::kStreaming &&
               device_->hub().Now() >= deadline_) {
      ConnectFailed(absl::DeadlineExceededError("no answer in time"), false);
    }
    WorkAndRelease(Why::kReady);
  } else {
    Drive(Why::kReady);  // leaves "look again"
  }
}

// While hot: nobody but pollers reads the socket. Who stops polling, or has nothing to read for a
// while, gives it back to the service.
void QueuePair::OnTick() {
  if (!TryOwn()) return;
  Why why = Why::kPost;
  if (phase_ == Phase::kStreaming && hot_) {
    if (served_ == served_at_tick_ || device_->hub().Now() - last_traffic_ > kIdleAfter) {
      why = Why::kHandOver;
    }
    served_at_tick_ = served_;
  }
  WorkAndRelease(why);
}

}  // namespace verbena::fallback
