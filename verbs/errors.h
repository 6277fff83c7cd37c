// SPDX-License-Identifier: Apache-2.0
// What the kernel's refusals become: absl::Status on the control path, PostError and WcStatus on
// the data path.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "transport/address.h"
#include "transport/checks.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena::verbs {

// "what: strerror (errno N). remedy": the code says what the caller can do next.
absl::Status ErrnoStatus(int error, const std::string& what, const std::string& remedy);

// errno of ibv_post_send, ibv_post_recv and ibv_post_srq_recv.
PostError PostErrorOf(int error);

WcStatus WcStatusOf(ibv_wc_status status);

using provider::Address;
using provider::CheckLimit;
using provider::Children;

}  // namespace verbena::verbs
