// SPDX-License-Identifier: Apache-2.0
// What a protection domain on an iWARP device has besides: its local keys, the sinks of its reads,
// and the memory of confirmations (IwarpSends).
//
// The answer to a read is a tagged write to its sink (RFC 5040 4.4), and hardware wants to see the
// right for it. A region that may be written here and not by peers has none; so its memory is
// registered once more with that right, when it is first read into, and reads use that key. The
// application never sees it; the peer that is read from does, in the request.
//
// A peer's confirming read must bring bytes: siw answers one of none with what it had sent before
// (siw_activate_tx keeps the former entry, and siw_qp_sq_proc_tx takes it). So each domain lends
// eight bytes that never change, and says so behind the private data of Connect and Accept. A peer
// that does not know that sees a tail, which rdma_connect(3) allows.
#pragma once

#include <infiniband/verbs.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "transport/access.h"
#include "transport/log.h"
#include "verbs/library.h"
#include "verbs/local_keys.h"

namespace verbena::verbs {

struct Confirmation {
  uint64_t address = 0;
  uint32_t key = 0;
  bool known = false;  // else a read of no bytes has to do
};

inline constexpr uint32_t kConfirmationBytes = 20;  // behind the private data
std::string WithConfirmation(std::string private_data, const Confirmation& confirmation);
// Takes it off again.
Confirmation SplitConfirmation(std::string* private_data);

class IwarpDomain {
 public:
  static constexpr uint64_t kLockedPages = 2;  // that Create locks, as the kernel counts
  static std::unique_ptr<IwarpDomain> Create(ibv_pd* pd,
                                             const Library& library = Lib());  // null: errno
  ~IwarpDomain();

  // LocalKeys::Sink is the key for a read into a region: its own if peers may write to it, or the
  // one that PrepareSink has made.
  const LocalKeys& keys() const { return keys_; }
  // Regions of the application come, and go. Remove: its sink, or null; to be deregistered when the
  // region is gone, or given back to Add if it stays.
  void Add(const ibv_mr& region, uint64_t first, Access access, ibv_mr* sink = nullptr);
  ibv_mr* Remove(uint32_t key);
  // Before a read into the region of `key`. The first time it pins memory, which may take long: to
  // be called with no lock held. If it is refused, it is not asked for again for a second.
  void PrepareSink(uint32_t key);
  absl::Status why_no_sink() const;  // the latest refusal
  Confirmation lent() const;         // to peers
  ibv_sge* sink() { return &sink_entry_; }

 private:
  struct Private {
    void* memory;
    size_t length;
    uint64_t first;
    ibv_mr* sink = nullptr;                            // from the first read on
    bool making = false;                               // a thread registers it
    absl::Duration again = -absl::InfiniteDuration();  // refused: not before, on the steady clock
  };
  IwarpDomain(ibv_pd* pd, const Library& library) : pd_(pd), library_(library) {}
  ibv_mr* Register(const Private& region, absl::Status* refused) const;

  ibv_pd* const pd_;
  const Library& library_;
  LocalKeys keys_;
  mutable std::mutex mutex_;  // not held while memory is registered
  std::condition_variable made_;
  absl::flat_hash_map<uint32_t, Private> private_;  // regions that peers may not write
  absl::Status no_sink_;
  LogLimit refusals_;
  std::unique_ptr<uint64_t[]> memory_;  // lent, sink
  ibv_mr* lent_ = nullptr;
  ibv_mr* sink_ = nullptr;
  ibv_sge sink_entry_{};
};

}  // namespace verbena::verbs
