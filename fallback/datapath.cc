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
constexpr int kCallsPerDrive = 8;           // of each direction, so that a drive stays short
constexpr Nanos kGatherFor = 5'000;         // requests that nobody waits for share a send call
constexpr Nanos kEmptyFor = 2'000;          // nothing is looked for so soon again, while gathering
constexpr Nanos kAnswersFor = 5'000'000;    // after its last poll a program may be about to answer
constexpr Nanos kAnswerWithin = 100'000;    // or the acknowledgement goes alone
constexpr Nanos kMssPeriod = 10'000'000;    // a path changes seldom, and is asked by a system call
constexpr Nanos kFarewell = 1'000'000'000;  // for the last words of a connection
}  // namespace

PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  const bool idle = engine_.outstanding() == 0;
  const PostResult result = engine_.PostSend(requests);
  if (result.accepted == 0) return result;
  if (!posted_.load(std::memory_order_relaxed)) posted_.store(true, std::memory_order_relaxed);
  // While answers are under way and somebody polls, more requests may share one send call: the next
  // poll sends them. Only a hot queue pair is driven by polls. If it cools down meanwhile, either
  // its owner sees "look again" before it lets go, or this thread sees that it is not hot.
  if (!idle && hot_.load(std::memory_order_relaxed) && MayWait(device_->hub().Now()) &&
      engine_.state() != QpState::kErr) {
    word_.fetch_or(kLookAgain, std::memory_order_seq_cst);
    if (hot_.load(std::memory_order_seq_cst)) return result;
  }
  Drive(Why::kPost);
  return result;
}

bool QueuePair::MayWait(Nanos now) const {
  return send_cq_->polled_just_now(now) ||
         (now - last_sent_.load(std::memory_order_relaxed) < kGatherFor && send_cq_->polled(now));
}

PostResult QueuePair::PostReceive(std::span<const ReceiveWr> requests) {
  bool wake = false;
  const PostResult result = engine_.PostReceive(requests, &wake);
  if (wake) Drive(Why::kPost);
  return result;
}

void QueuePair::SettleAndRelease() {
  if (!engine_.owes()) return Release();
  WorkAndRelease(Why::kReady, 0);
}

void QueuePair::Work(Why why, Nanos now) {
  if (dead()) return;
  if (TakeFailure()) {
    engine_.Fail(absl::ResourceExhaustedError("a completion queue of this queue pair overflowed"));
  }
  if (phase_ == Phase::kStreaming) {
    // Whoever posts wants it sent: the clock can wait.
    if (now == 0 && (why != Why::kPost || engine_.within_mss())) now = device_->hub().Now();
    ServeStream(why, now);
  } else if (phase_ != Phase::kIdle) {
    ContinueConnect();
  }
  if (phase_ == Phase::kIdle && engine_.peer_left()) AwaitLoss();
  engine_.FlushPosted();
  if (has_unsent_.load(std::memory_order_relaxed) != engine_.HasUnsent()) {
    has_unsent_.store(engine_.HasUnsent(), std::memory_order_seq_cst);
  }
  if (drain_watched_.load(std::memory_order_seq_cst) && engine_.outstanding() == 0) {
    drain_watched_.store(false, std::memory_order_relaxed);
    device_->hub().world().Changed();
  }
}

void QueuePair::ServeStream(Why why, Nanos now) {
  const bool poller = why == Why::kPoll && hot_;
  if (poller) Served(now);
  // Nobody may come again to a cold queue pair, so what it owes goes now; a poller comes back, and
  // who serves a wait set settles before it sleeps.
  bool idle = !hot_;
  bool sent = false;
  rests_until_ = 0;
  if (why == Why::kPost) {
    sent = SendSome(idle, now);
  } else {
    const bool quiet =
        poller && engine_.quiet() && wanted_set_.load(std::memory_order_relaxed) == nullptr;
    const bool gathers = poller && engine_.gathering();
    if (!gathers || now - last_empty_ >= kEmptyFor) {
      const Came came = ReceiveSome(now);
      if (came == Came::kNothing) {
        if (quiet) return;  // most polls
        last_empty_ = now;
      }
      idle = came == Came::kNothing ||
             (came == Came::kAll && !poller && why != Why::kServe && !AnswerMayCome(now));
      if (idle) answer_due_ = io::kNever;
    }
    engine_.Tick(now);
    const Nanos gather_until = last_sent_.load(std::memory_order_relaxed) + kGatherFor;
    if (gathers && engine_.gathering() && now < gather_until) {
      rests_until_ = std::min(gather_until, last_empty_ + kEmptyFor);
    } else {
      sent = SendSome(idle, now);
    }
  }
  if (sent) {
    if (now == 0) now = device_->hub().Now();
    last_traffic_ = now;
    last_sent_.store(now, std::memory_order_relaxed);
  }
  if (engine_.over()) {
    EndStream();
    return;
  }
  if (!engine_.owes()) answer_due_ = io::kNever;
  Nanos deadline = std::min(engine_.deadline(), answer_due_);
  if (engine_.closing()) {
    if (!sent_farewell_) {
      sent_farewell_ = true;
      deadline_ = device_->hub().Now() + kFarewell;
    }
    deadline = std::min(deadline, deadline_);
  }
  device_->hub().SetDeadline(this, deadline);
  ChooseWatcher(why, now, engine_.closing());
}

// A program that polls, and posted since the last message, will hardly leave this one without an
// answer, which takes the acknowledgement along. Once, and not for long. Two ends that acknowledge
// alone would not find out of it in the loop of perftest's latency tests: each has its completion
// before the other's message comes, and watches memory while nobody reads the socket.
bool QueuePair::AnswerMayCome(Nanos now) {
  if (answer_due_ != io::kNever || !engine_.owes()) return false;
  if (!receive_cq_->polled(now, kAnswersFor) && !send_cq_->polled(now, kAnswersFor)) return false;
  if (!posted_.load(std::memory_order_relaxed)) return false;
  posted_.store(false, std::memory_order_relaxed);
  answer_due_ = now + kAnswerWithin;
  return true;
}

// Stops at a short read: asking again only to hear EAGAIN costs a call.
QueuePair::Came QueuePair::ReceiveSome(Nanos now) {
  std::array<iovec, engine::kMaxSge + 1> space;
  Came came = Came::kNothing;
  for (int i = 0; i < kCallsPerDrive; ++i) {
    const int count = engine_.ReceiveSpace(space.data(), static_cast<int>(space.size()));
    size_t want = 0;
    for (int k = 0; k < count; ++k) want += space[static_cast<size_t>(k)].iov_len;
    const ssize_t n = device_->hub().streams().Receive(
        socket_, std::span(space.data(), static_cast<size_t>(count)));
    if (n == -EAGAIN) return came;
    came = Came::kAll;
    if (n == -EFAULT) {
      engine_.PlacementFailed();
      return came;
    }
    if (n <= 0) {
      engine_.ReceiveEnded(static_cast<int>(-n), now);
      return came;
    }
    last_traffic_ = now;
    engine_.Received(static_cast<size_t>(n), now);
    if (static_cast<size_t>(n) < want) return came;
  }
  return Came::kMore;
}

// Whether anything went.
bool QueuePair::SendSome(bool idle, Nanos now) {
  bool sent = false;
  want_write_ = false;
  if (engine_.within_mss() && now >= mss_due_) ReadMss(now);
  for (int i = 0; i < kCallsPerDrive; ++i) {
    const std::span<const iovec> v = engine_.Gather(idle, now);
    if (v.empty()) return sent;
    const ssize_t n = device_->hub().streams().Send(socket_, v);
    if (n == -EAGAIN) break;
    if (n < 0) {
      engine_.SendFailed(static_cast<int>(-n));
      // What the peer said before it went tells more than the errno.
      while (ReceiveSome(now) == Came::kMore) {
      }
      return sent;
    }
    sent = true;
    engine_.Sent(static_cast<size_t>(n));
    if (engine_.HasUnsent()) break;  // the socket is full
  }
  want_write_ = true;
  return sent;
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
    } else if (phase_ == Phase::kIdle && device_->hub().Now() >= lost_at_) {
      engine_.PeerLost("it left before");
    }
    WorkAndRelease(Why::kReady, 0);
  } else {
    Drive(Why::kReady);  // leaves "look again"
  }
}

// While hot: nobody but pollers reads the socket. Who stops polling, or has nothing to read for a
// while, gives it back to the service.
void QueuePair::OnTick() {
  if (!TryOwn()) return;
  if (phase_ == Phase::kStreaming && hot_) {
    const Nanos now = device_->hub().Now();
    if (Neglected(now)) {
      WorkAndRelease(Why::kHandOver, now);
      return;
    }
    if (!engine_.quiet()) {  // a post left its request to a poll
      WorkAndRelease(Why::kPost, now);
      return;
    }
  }
  Release();
}

}  // namespace verbena::fallback
