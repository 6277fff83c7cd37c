// SPDX-License-Identifier: Apache-2.0
// What has a socket, and is driven by whoever is there: a queue pair of either kind.
//
// Ownership (docs/decisions/0007-ownership.md). One word: owned, and "look again". Posting threads,
// polling threads and the service take it without ever waiting for it; who finds it taken leaves
// "look again" behind, and the owner does before it lets go. So no lock is held across a system
// call, and no request is left lying.
//
// Who watches the socket: the service's poller (cold), the threads that poll its completion queues
// (hot), which then read it without asking first, or those that sleep in wait sets (waited). Only
// the owner changes that.
#pragma once

#include <atomic>
#include <vector>

#include "absl/functional/function_ref.h"
#include "fallback/device.h"
#include "fallback/hub.h"

namespace verbena::fallback {

class CompletionQueue;
class WaitSet;

class Driven : public Watched {
 public:
  // kServe: by who sleeps on a wait set; kHandOver: nobody polls any more; kStepIn: nobody serves
  // a wait set any more.
  enum class Why : uint8_t { kPost, kPoll, kReady, kServe, kHandOver, kStepIn };

  bool TryOwn() const {
    uint32_t word = word_.load(std::memory_order_relaxed);
    do {
      if ((word & (kOwned | kDead)) != 0) return false;
    } while (!word_.compare_exchange_weak(word, word | kOwned, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
    return true;
  }
  // TryOwn; or else, who owns it looks again before letting go.
  bool OwnOrNote() {
    uint32_t word = word_.load(std::memory_order_relaxed);
    uint32_t mark = 0;
    do {
      if ((word & kDead) != 0) return false;
      // No note to oneself: who settles, and finds nothing owed, has not to look.
      mark = (word & kOwned) == 0 ? kOwned : kLookAgain;
    } while (!word_.compare_exchange_weak(word, word | mark, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
    return mark == kOwned;
  }
  // Who owns it looks again before letting go. If nobody does, all that the last owner did is seen.
  void NoteToOwner() const {
    uint32_t word = word_.load(std::memory_order_seq_cst);
    while ((word & kOwned) != 0 &&
           !word_.compare_exchange_weak(word, word | kLookAgain, std::memory_order_seq_cst)) {
    }
  }
  // `now`: 0 if not known. Until when it may be left alone, should nothing be posted.
  virtual Nanos WorkAndRelease(Why why, Nanos now) = 0;
  virtual void SettleAndRelease() = 0;  // an acknowledgement that is owed goes now
  // Into a wait set; out of one that nobody serves.
  void JoinAndRelease(WaitSet* set);
  void StepInAndRelease(WaitSet* set);
  // TryOwn; or else, who owns it puts it into `set` before letting go.
  bool OwnOrAskToJoin(WaitSet* set);
  // After a key died: returns when no drive uses its memory any more, in a call or in what it has
  // framed and not sent.
  virtual void ForgetDeadKeys() { AwaitDrive(); }
  void Schedule();        // the service drives it soon
  void RequestFailure();  // a completion queue overflowed

  Device* device() const { return device_; }

 protected:
  static constexpr uint32_t kOwned = 1;
  static constexpr uint32_t kLookAgain = 2;
  static constexpr uint32_t kDead = 4;
  static constexpr int kRoundsPerDrive = 8;       // of "look again"
  static constexpr Nanos kIdleAfter = 2'000'000;  // without traffic one of many hot ones becomes
                                                  // cold

  Driven(Device* device, CompletionQueue* send_cq, CompletionQueue* receive_cq)
      : device_(device), send_cq_(send_cq), receive_cq_(receive_cq) {}

  // WorkAndRelease of a class that has Work(Why, Nanos), without a virtual call.
  template <typename Self>
  static Nanos Rounds(Self* self, Why why, Nanos now);
  void Release();       // nothing was done, unless somebody left a note
  bool Drive(Why why);  // false: somebody else has it, and will look again; or it is dead
  // Owner, and waits for its turn: control path.
  void WithOwnership(absl::FunctionRef<void()> f) const;
  void AwaitDrive() const;  // the one under way has ended
  bool TakeFailure() {      // RequestFailure was called
    return failure_requested_.load(std::memory_order_relaxed) && failure_requested_.exchange(false);
  }
  bool dead() const { return (word_.load(std::memory_order_relaxed) & kDead) != 0; }

  // watching.cc, owner
  virtual bool HasStream() const = 0;  // a socket that is watched
  // At the end of each drive; `closing`: last words are the service's.
  void ChooseWatcher(Why why, Nanos now, bool closing);
  void Served(Nanos now) {  // by a poller
    ++served_;
    last_served_ = now;
  }
  bool Neglected(Nanos now);  // hot, and nobody polls it, or nothing comes; once a tick
  void MakeHot();
  void MakeCold();
  void JoinSet(WaitSet* set);
  void LeaveSet(WaitSet* set);
  void Unwatch();
  void UpdateWatch();

  Device* const device_;
  CompletionQueue* const send_cq_;
  CompletionQueue* const receive_cq_;

  mutable std::atomic<uint32_t> word_{0};
  mutable std::atomic<uint64_t> drives_{0};
  std::atomic<bool> failure_requested_{false};

  // Owner only.
  io::Socket socket_ = io::kNoSocket;
  std::atomic<bool> hot_{false};               // written by the owner, read by posting threads
  std::vector<WaitSet*> sets_;                 // those it is in; hot: none
  WaitSet* unserved_set_ = nullptr;            // of a kStepIn under way
  std::atomic<WaitSet*> wanted_set_{nullptr};  // to join, by whoever drives next
  bool want_write_ = false;                    // the socket took less than there is
  bool watching_write_ = false;
  uint64_t served_ = 0;  // drives by pollers
  uint64_t served_at_tick_ = 0;
  Nanos last_traffic_ = 0;
  Nanos last_served_ = 0;  // by a poller
  Nanos rests_until_ = 0;  // a poll need not drive it before
};

template <typename Self>
inline Nanos Driven::Rounds(Self* self, Why why, Nanos now) {
  for (int round = 1;; ++round) {
    if ((self->word_.load(std::memory_order_relaxed) & kLookAgain) != 0) {
      self->word_.fetch_and(~kLookAgain, std::memory_order_acq_rel);
      // The mark may be of one who settles: it counts on this drive, which must not leave a debt.
      if (why == Why::kServe) why = Why::kReady;
    }
    if (round > 1) now = 0;
    self->Work(why, now);
    uint32_t mine = kOwned;
    const Nanos rest = self->rests_until_;
    self->drives_.store(self->drives_.load(std::memory_order_relaxed) + 1,
                        std::memory_order_release);
    // After this exchange the queue pair may be gone: nothing of it is touched any more.
    if (self->word_.compare_exchange_strong(mine, 0, std::memory_order_seq_cst)) return rest;
    if ((mine & kDead) != 0) {
      self->word_.fetch_and(~kOwned, std::memory_order_seq_cst);
      return 0;
    }
    if (round == kRoundsPerDrive) {  // others keep coming: this caller has done enough for them
      Hub* const hub = &self->device_->hub();
      const uint64_t id = Hub::IdOf(*self);
      self->word_.fetch_and(~kOwned, std::memory_order_seq_cst);
      hub->Poke(id);  // after letting go, or the service finds it owned and trusts the owner
      return 0;
    }
    why = Why::kReady;  // whoever left the mark may have come to receive
  }
}

}  // namespace verbena::fallback
