// SPDX-License-Identifier: Apache-2.0
// Where a channel's servers are, if its name is not just an address. The seam behind which DNS
// (rpc/dns.h) and etcd (rpc/names/etcd.h) are.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace verbena::rpc {

class Resolver {
 public:
  // All addresses, "10.0.0.1:7500", each time that they may have changed. Not OK: they could not be
  // found out; the last ones stay.
  using Changed = std::function<void(absl::StatusOr<std::vector<std::string>>)>;

  virtual ~Resolver() = default;  // `changed` is not called any more when it returns
  // Once. `changed` runs on a thread of the resolver's and may take its time, but does not end the
  // resolver.
  virtual void Start(Changed changed) = 0;
  // A server could not be reached, or was lost: maybe the name has another by now. Any thread; does
  // not block.
  virtual void LookAgain() = 0;
};

// Whose name it is; null: somebody else's. InvalidArgument: it cannot be.
using Names = std::function<absl::StatusOr<std::unique_ptr<Resolver>>(const std::string& name)>;

}  // namespace verbena::rpc
