// SPDX-License-Identifier: Apache-2.0
// What a protection domain on an iWARP device has besides: its local keys, and the memory of
// confirmations (IwarpSends).
//
// A peer's confirming read must bring bytes: siw answers one of none with what it had sent before
// (siw_activate_tx keeps the former entry, and siw_qp_sq_proc_tx takes it). So each domain lends
// eight bytes that never change, and says so behind the private data of Connect and Accept. A peer
// that does not know that sees a tail, which rdma_connect(3) allows.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>
#include <string>

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
  static std::unique_ptr<IwarpDomain> Create(ibv_pd* pd);  // null: errno
  ~IwarpDomain();

  LocalKeys& keys() { return keys_; }
  Confirmation lent() const;  // to peers
  ibv_sge* sink() { return &sink_entry_; }

 private:
  IwarpDomain() = default;

  LocalKeys keys_;
  std::unique_ptr<uint64_t[]> memory_;  // lent, sink
  ibv_mr* lent_ = nullptr;
  ibv_mr* sink_ = nullptr;
  ibv_sge sink_entry_{};
};

}  // namespace verbena::verbs
