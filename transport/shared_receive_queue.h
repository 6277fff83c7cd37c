// SPDX-License-Identifier: Apache-2.0
// Receives that many queue pairs take from: ibv_create_srq(3), ibv_modify_srq(3). Any thread.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "transport/counters.h"
#include "transport/handle.h"
#include "transport/options.h"
#include "transport/provider.h"
#include "transport/work_request.h"

namespace verbena {

class SharedReceiveQueue : public Handle<provider::SharedReceiveQueue> {
 public:
  using Handle::Handle;

  PostResult PostReceive(const ReceiveWr& request) { return PostReceive({&request, 1}); }
  PostResult PostReceive(std::span<const ReceiveWr> requests) {
    return impl_->PostReceive(requests);
  }

  // Arms the one-shot kSrqLimitReached: raised when fewer than `limit` receives are left (at once
  // if that is so already). 0 disarms. InvalidArgument above max_wr.
  absl::Status SetLimit(uint32_t limit) { return impl_->SetLimit(limit); }
  SrqLimits limits() const { return impl_->limits(); }
  SrqCounters counters() const { return impl_->counters(); }
};

}  // namespace verbena
