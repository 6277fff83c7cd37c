// SPDX-License-Identifier: Apache-2.0
// Address handles that the application has closed and the device may still need. Ours may be closed
// when the post has returned (Destination::address), a device's not before the send has completed:
// Soft-RoCE looks it up when it makes the packet (Linux 6.1 rxe_av.c rxe_get_av). So each waits for
// what was outstanding when it was closed. Posts and polls know nothing of this.
//
// Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "verbs/ledger.h"
#include "verbs/library.h"

namespace verbena::verbs {

class CompletionQueue;

// Of one protection domain.
class SpentHandles {
 public:
  static constexpr size_t kMany = 64;  // so many, and nobody polls: then the devices are asked

  // A queue pair of datagrams: its sends, and where they complete. Until Leave.
  void Join(const Ledger* sends, CompletionQueue* cq);
  void Leave(const Ledger* sends);
  void Add(ibv_ah* handle);
  void DestroyAll();  // nobody sends any more

 private:
  struct Sender {
    const Ledger* sends;
    CompletionQueue* cq;
  };
  struct Mark {  // these are posted
    const Ledger* sends;
    uint64_t until;
  };
  struct Spent {
    ibv_ah* handle;
    std::vector<Mark> awaits;
  };
  void Sweep();

  std::mutex mutex_;
  std::vector<Sender> senders_;
  std::vector<Spent> spent_;
};

}  // namespace verbena::verbs
