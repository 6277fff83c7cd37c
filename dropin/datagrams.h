// SPDX-License-Identifier: Apache-2.0
// UD: address handles, posts and groups of the ABI, over the fallback's (decision 0022).
#pragma once

#include <infiniband/verbs.h>

#include <memory>
#include <optional>

#include "transport/datagram.h"
#include "transport/ip.h"
#include "transport/work_request.h"

namespace verbena::dropin {

class AddressHandle final : public ibv_ah {
 public:
  static AddressHandle* Of(ibv_ah* ah) { return static_cast<AddressHandle*>(ah); }
  // Null, with errno set.
  static ibv_ah* Create(ibv_pd* pd, const ibv_ah_attr& attr);

  const verbena::AddressHandle* handle() const { return &handle_; }

 private:
  AddressHandle() : ibv_ah{} {}
  verbena::AddressHandle handle_;
};

// A GID as an address: groups of IPv4 have ff0e::ffff:a.b.c.d (or ::ffff:a.b.c.d, as RoCE v2).
Ip IpOfGid(const ibv_gid& gid);
ibv_gid GidOfGroup(const Ip& group);  // the former
ibv_ah_attr AttributesOf(const ibv_gid& gid);

Destination DestinationOf(ibv_ah* ah, uint32_t qp_number, uint32_t qkey);

}  // namespace verbena::dropin
