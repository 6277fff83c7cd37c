// SPDX-License-Identifier: Apache-2.0
// A small queue pair of selection's own, with all that it needs, on any device.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/completion_queue.h"
#include "transport/device.h"
#include "transport/protection_domain.h"
#include "transport/provider.h"
#include "transport/queue_pair.h"

namespace verbena::connect {

class Probe {
 public:
  // Its events carry `context`, by which they are told from the application's.
  static absl::StatusOr<std::unique_ptr<Probe>> Make(provider::Device* device, void* context);

  provider::QueuePair& qp() const { return *qp_.impl(); }

  // Connects it; waits in `base` for the outcome, at most for `deadline`.
  ConnectOutcome Connect(provider::Path& path, const std::string& private_data,
                         absl::Duration deadline, provider::Context& base);

 private:
  explicit Probe(provider::Device* device) : device_(device, device->owner()) {}

  Device device_;  // the API's face, of which these are made; in this order
  ProtectionDomain pd_;
  CompletionQueue cq_;
  QueuePair qp_;
};

}  // namespace verbena::connect
