// SPDX-License-Identifier: Apache-2.0
#include "connect/path.h"

#include <algorithm>

#include "connect/limits.h"
#include "transport/log.h"

namespace verbena::connect {

absl::Status StraightPath::Connect(provider::QueuePair& qp, const ConnectParameters& parameters) {
  if (absl::Status s = path_->Connect(qp, parameters); !s.ok()) return s;
  core_.CountConnection(info().candidates);
  VERBENA_LOG(kInfo, "select", "connect ", info().peer, ": over ", Explain(info()));
  return absl::OkStatus();
}

RdmaPath::RdmaPath(Core* core, Rendezvous* rendezvous, std::unique_ptr<provider::Path> via,
                   const std::string& address, const Verdict& verdict, Rdma mode)
    : core_(*core),
      rendezvous_(*rendezvous),
      via_(std::move(via)),
      device_(verdict.device),
      nth_(verdict.nth) {
  info_.peer = address;
  info_.own_peer = true;
  info_.candidates = core_.OnDevice(*device_, kProven, mode, verdict.losers);
}

absl::Status RdmaPath::Connect(provider::QueuePair& qp, const ConnectParameters& parameters) {
  const absl::Duration start = core_.base().Now();
  auto path = rendezvous_.Redirected(*via_, info_.peer, device_, nth_, parameters.deadline);
  if (!path.ok()) return path.status();
  provider::Selection selection;
  selection.candidates = info_.candidates;
  (*path)->Announce(selection);
  ConnectParameters rest = parameters;
  rest.deadline =
      std::max(parameters.deadline - (core_.base().Now() - start), absl::ZeroDuration());
  absl::Status status = (*path)->Connect(qp, rest);
  (void)(*path)->Close();
  if (!status.ok()) return status;
  core_.CountConnection(info_.candidates);
  VERBENA_LOG(kInfo, "select", "connect ", info_.peer, ": over ", Explain(info_));
  return absl::OkStatus();
}

}  // namespace verbena::connect
