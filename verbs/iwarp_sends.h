// SPDX-License-Identifier: Apache-2.0
// What the send queue of an iWARP device lacks, and is made up for here.
//
// RFC 5040 completes a request when its bytes were handed to TCP. Where the connection requires
// that the peer has applied it, a read of eight bytes goes behind each send and write and completes
// in its stead: the answer comes after all before it was placed (RFC 5040 5.5). A read has one
// sink there (RFC 5040 4.4), so one with many entries becomes many. Drivers have no
// SQD: what is posted then waits here. Nor do they flush what is posted in ERR, so it is not given
// to them.
//
// The service's mutex guards all but Finish(), which reads what never changes once connected.
// Posters have the turn (turn.h) instead, and so has a change of may_post_.
#pragma once

#include <infiniband/verbs.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "transport/work_request.h"
#include "verbs/iwarp_domain.h"
#include "verbs/ledger.h"

namespace verbena::verbs {

class IwarpSends {
 public:
  // A request that waits: in SQD, or for reads before it. `entries` are its own; inline data is
  // `copied`.
  struct Held {
    uint64_t position;
    bool read, fenced;
    std::vector<ibv_send_wr> work;
    std::vector<ibv_sge> entries;
    std::vector<std::byte> copied;
  };

  explicit IwarpSends(IwarpDomain* domain) : domain_(domain) {}

  bool confirms() const { return confirms_; }
  void set_confirms(bool wanted) { confirms_ = wanted; }
  // What the peer lends to be confirmed by.
  void set_peer(const Confirmation& peer) { peer_ = peer; }

  // Places of the device's queue that one request takes at most, and what follows from that.
  void set_places(uint32_t places) { places_ = places; }
  bool Takes(const SendWr& wr) const {
    return wr.opcode != Opcode::kRead || wr.local.size() <= places_;
  }
  // Before `requests` are built, and with no lock held: it may register memory.
  void Prepare(std::span<const SendWr> requests) const;
  // `work` was built for any device; the answer is how many more were put behind it.
  uint32_t Finish(ibv_send_wr* work) const {
    if (work->opcode == IBV_WR_RDMA_READ) return FinishRead(work);
    return confirms_ ? Confirm(work) : 0;
  }
  // siw's kernel part dereferences null at an entry of no bytes among others (siw_tx_hdt), and its
  // library refuses a receive without entries. How many there are without those.
  static int CopyEntries(const SgeList& from, ibv_sge* to);
  static ibv_sge* Nothing();
  // A read that brings nobody anything, and completes when all before it has.
  ibv_send_wr Probe(uint64_t name) const;
  // How many of the application's requests the first `count` of `work` are.
  static uint32_t Requests(const ibv_send_wr* work, uint32_t count);

  // siw keeps the place from which it would answer the peer for a request that waits for its own
  // reads, because it is fenced or a read too many: two ends that do so never go on
  // (siw_activate_tx). So such a request waits here. `position`: all before it are in the device.
  bool MayStart(bool read, bool fenced, uint64_t position, const Ledger& ledger) const;
  void NoteRead(uint64_t name) { read_end_.store(Ledger::Next(name), std::memory_order_release); }
  // How many requests may be in the device, if one of them is a read.
  uint32_t depth() const { return std::max(depth_, 2u) - 1; }
  void set_depth(uint32_t depth) { depth_ = depth; }
  bool waiting() const { return waiting_; }
  void set_waiting(bool waiting) { waiting_ = waiting; }
  // Whether the completion of what ends before `position` has to be asked for.
  bool ProbeOnce(uint64_t position) { return std::exchange(probed_, position) != position; }

  std::deque<Held>& held() { return held_; }
  bool draining() const { return draining_; }
  void set_draining(bool draining) { draining_ = draining; }

 private:
  uint32_t FinishRead(ibv_send_wr* work) const;
  uint32_t Confirm(ibv_send_wr* work) const;

  IwarpDomain* const domain_;
  Confirmation peer_;
  bool confirms_ = false;
  uint32_t places_ = 2;
  uint32_t depth_ = 1;                 // reads in flight
  std::atomic<uint64_t> read_end_{0};  // a name
  bool waiting_ = false;               // in RTS, and something is held
  uint64_t probed_ = 0;
  bool draining_ = false;  // in SQD, and kSendQueueDrained has not been told
  std::deque<Held> held_;
};

}  // namespace verbena::verbs
