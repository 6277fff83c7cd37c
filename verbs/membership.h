// SPDX-License-Identifier: Apache-2.0
// One queue pair's place in a multicast group: the device gives it a copy (ibv_attach_mcast(3)),
// and the port's network interface is a member, so that its datagrams come here at all. That is
// what rdma_join_multicast(3) does on RoCE, for IPv4 alone; a socket does it for both, and leaves
// when it is closed.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "verbs/inventory.h"
#include "verbs/library.h"

namespace verbena::verbs {

// Control path, one thread at a time.
class Membership {
 public:
  // `on`: a GID of the port, of the group's family.
  static absl::StatusOr<std::unique_ptr<Membership>> Begin(ibv_qp* qp, const Ip& group,
                                                           const Gid& on);
  Membership(ibv_qp* qp, const ibv_gid& gid, int socket) : qp_(qp), gid_(gid), socket_(socket) {}
  ~Membership();  // while the queue pair is there
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

 private:
  ibv_qp* const qp_;
  const ibv_gid gid_;
  const int socket_;
};

}  // namespace verbena::verbs
