// SPDX-License-Identifier: Apache-2.0
// Several providers as one context, which chooses between them: see
// docs/decisions/0013-one-listener-for-rdma-and-tcp.md.
#pragma once

#include <memory>
#include <vector>

#include "transport/options.h"
#include "transport/provider.h"

namespace verbena::connect {

struct Settings {
  Rdma rdma = Rdma::kAuto;  // where the options of a call say nothing
  // RDMA that is not there or was not opened, and why: "verbs", "libibverbs.so.1 is not installed".
  std::vector<Candidate> absent = {};
};

// `base` is the provider that works everywhere. Its sockets carry the rendezvous, its service
// answers it, and all waiting for events and requests is done in its Await.
std::unique_ptr<provider::Context> Compose(std::unique_ptr<provider::Context> base,
                                           std::vector<std::unique_ptr<provider::Context>> rdma,
                                           const Settings& settings);

}  // namespace verbena::connect
