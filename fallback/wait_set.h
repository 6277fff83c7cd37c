// SPDX-License-Identifier: Apache-2.0
// Queue pairs whose sockets are watched by threads that sleep (docs/decisions/0012-waiting.md): in
// the library, or on a completion channel's descriptor. To wait on the set is to drive them, so a
// message costs one wake-up. If nobody comes for a while, the service takes over what is ready.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>

#include "absl/container/flat_hash_set.h"
#include "fallback/engine/spin_lock.h"
#include "fallback/hub.h"
#include "fallback/io/ready_set.h"

namespace verbena::fallback {

class Driven;

class WaitSet final : Watched {
 public:
  static absl::StatusOr<std::unique_ptr<WaitSet>> Create(Hub* hub);
  WaitSet(Hub* hub, std::unique_ptr<io::ReadySet> ready);
  ~WaitSet() override;  // no queue pair is in it

  int fd() const { return ready_->fd(); }
  bool empty() const { return count_.load(std::memory_order_relaxed) == 0; }

  // By the owner of `qp`. Join: false if the kernel has no room for its socket.
  bool Join(Driven* qp, io::Socket socket, bool write);
  void ChangeWatch(Driven* qp, io::Socket socket, bool write);
  void Leave(Driven* qp, io::Socket socket);

  // Sleeps until a socket is ready, the bell rings or `deadline` has come (0: does not sleep), and
  // drives the queue pairs whose sockets are ready. `polling`: from a poll, see ChooseWatcher.
  // Who sleeps settles first, and looks whether that brought what he waits for.
  void Serve(Nanos deadline, bool polling = false);

  // Who serves goes to sleep, or does not come back: acknowledgements that waited for an answer to
  // go with are sent.
  void Settle();

  // The bell ends the sleep of all until it is silenced.
  void Ring() { ready_->Ring(); }
  void Silence() { ready_->Silence(); }

  // Between the two it is not destroyed.
  void Pin() { pins_.fetch_add(1, std::memory_order_relaxed); }
  void Unpin() { pins_.fetch_sub(1, std::memory_order_release); }

 private:
  static constexpr Nanos kUnserved = 200'000;  // then the service steps in
  static constexpr int kQuietLooks = 5;        // then it stops looking
  static constexpr size_t kBatch = 16;         // sockets that are served at a time

  // Watched: of the set's descriptor.
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override;
  void FindOnly();            // with lock_ held
  Driven* Own(uint64_t tag);  // null: it has left, or somebody else has it
  bool MayOwe(uint64_t tag);
  bool owed() const { return debtor_count_.load(std::memory_order_seq_cst) > 0; }
  void LookSoon();
  void StepIn(std::span<const uint64_t> ready);

  Hub* const hub_;
  const std::unique_ptr<io::ReadySet> ready_;
  engine::SpinLock lock_;
  absl::flat_hash_set<Driven*> members_;
  std::atomic<uint64_t> only_{0};              // the tag of its member, if there is one alone
  std::array<uint64_t, kBatch> debtors_ = {};  // who may owe an acknowledgement: tags; lock_
  std::atomic<size_t> debtor_count_{0};
  std::atomic<size_t> count_{0};
  std::atomic<int> pins_{0};
  std::atomic<uint64_t> serves_{0};  // that found a socket ready

  std::atomic<bool> looking_{false};  // the service will, soon

  // The service only.
  bool watching_ = true;  // edges
  uint64_t serves_seen_ = 0;
  bool was_ready_ = false;
  int quiet_looks_ = 0;
};

}  // namespace verbena::fallback
