// SPDX-License-Identifier: Apache-2.0
#include "connect/request.h"

#include "transport/log.h"

namespace verbena::connect {

absl::Status Request::Accept(provider::QueuePair& qp, const AcceptParameters& parameters) {
  if (absl::Status s = request_->Accept(qp, parameters); !s.ok()) return s;
  core_.CountConnection(info().candidates);
  VERBENA_LOG(kInfo, "select", "accept ", info().local, " from ", info().peer, ": over ",
              Explain(info()));
  return absl::OkStatus();
}

}  // namespace verbena::connect
