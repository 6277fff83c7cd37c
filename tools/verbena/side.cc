// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/side.h"

namespace verbena::tool {

absl::Status CheckSide(const SideOptions& options) {
  if (options.server == options.client) {
    return absl::InvalidArgumentError("say which side this is: -s (server) or -c (client)");
  }
  if (options.client && options.host.empty()) {
    return absl::InvalidArgumentError("-c needs the server's address: -a HOST");
  }
  if (options.client && options.port == 0) {
    return absl::InvalidArgumentError("-p 0 is for servers; a client names the server's port");
  }
  return absl::OkStatus();
}

ContextOptions OpenOptions(const SideOptions& options) {
  ContextOptions open{.device = options.device};
  for (Rdma each : {Rdma::kOff, Rdma::kAuto, Rdma::kRequired}) {
    if (options.rdma == RdmaName(each)) open.rdma = each;
  }
  return open;
}

}  // namespace verbena::tool
