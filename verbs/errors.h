// SPDX-License-Identifier: Apache-2.0
// What the kernel's refusals become: absl::Status on the control path, PostError and WcStatus on
// the data path. And the count of children that each parent keeps.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena::verbs {

// "what: strerror (errno N). remedy": the code says what the caller can do next.
absl::Status ErrnoStatus(int error, const std::string& what, const std::string& remedy);

// errno of ibv_post_send, ibv_post_recv and ibv_post_srq_recv.
PostError PostErrorOf(int error);

WcStatus WcStatusOf(ibv_wc_status status);

// "completion queue entries: 99999999 asked for, at most 32767 on device rxe0"
absl::Status CheckLimit(const char* what, uint64_t asked, uint64_t limit,
                        const std::string& device);

// Counts what must be closed before its parent. Any thread.
class Children {
 public:
  void Add() { count_.fetch_add(1, std::memory_order_relaxed); }
  void Remove() { count_.fetch_sub(1, std::memory_order_release); }
  int count() const { return count_.load(std::memory_order_acquire); }
  // OK, or FailedPrecondition: "close protection domain: 2 objects made from it still open".
  absl::Status CheckNone(const char* what) const;

 private:
  std::atomic<int> count_{0};
};

}  // namespace verbena::verbs
