// SPDX-License-Identifier: Apache-2.0
#include "connect/probe.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena::connect {

absl::StatusOr<std::unique_ptr<Probe>> Probe::Make(provider::Device* device, void* context) {
  std::unique_ptr<Probe> probe(new Probe(device));
  auto pd = probe->device_.AllocateProtectionDomain();
  if (!pd.ok()) return pd.status();
  probe->pd_ = *std::move(pd);
  auto cq = probe->device_.CreateCompletionQueue({.entries = 8});
  if (!cq.ok()) return cq.status();
  probe->cq_ = *std::move(cq);
  QueuePairOptions options{.send_cq = &probe->cq_, .receive_cq = &probe->cq_, .context = context};
  options.limits = {.max_send_wr = 2, .max_receive_wr = 2, .max_send_sge = 1, .max_receive_sge = 1};
  options.access = Access::kLocalWrite;
  auto qp = probe->pd_.CreateQueuePair(options);
  if (!qp.ok()) return qp.status();
  probe->qp_ = *std::move(qp);
  return probe;
}

ConnectOutcome Probe::Connect(provider::Path& path, const std::string& private_data,
                              absl::Duration deadline, provider::Context& base) {
  ConnectParameters parameters;
  parameters.private_data = private_data;
  parameters.initiator_depth = parameters.responder_resources = 1;
  parameters.deadline = deadline;
  ConnectOutcome outcome;
  outcome.kind = ConnectOutcome::Kind::kUnreachable;
  outcome.status = path.Connect(qp(), parameters);
  if (!outcome.status.ok()) return outcome;
  const auto ready = [&] {
    outcome = qp().outcome();
    return outcome.kind != ConnectOutcome::Kind::kPending;
  };
  if (base.Await(ready, deadline)) return outcome;
  outcome.kind = ConnectOutcome::Kind::kUnreachable;
  outcome.status = absl::DeadlineExceededError(
      absl::StrCat("no answer within ", absl::FormatDuration(deadline)));
  return outcome;
}

}  // namespace verbena::connect
