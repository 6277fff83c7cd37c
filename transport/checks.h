// SPDX-License-Identifier: Apache-2.0
// What every provider checks before it makes an object, and how it counts the objects that are
// made: once, so that they all refuse the same things with the same words.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "transport/access.h"
#include "transport/completion_queue.h"
#include "transport/device.h"
#include "transport/options.h"
#include "transport/shared_receive_queue.h"

namespace verbena::provider {

// Counts what must be closed before its parent. Any thread.
class Children {
 public:
  void Add() { count_.fetch_add(1, std::memory_order_seq_cst); }
  void Remove() { count_.fetch_sub(1, std::memory_order_release); }
  int count() const { return count_.load(std::memory_order_seq_cst); }
  // OK, or FailedPrecondition: "close protection domain: 2 objects made from it still open".
  absl::Status CheckNone(const char* what) const;

 private:
  std::atomic<int> count_{0};
};

// "completion queue entries: 99999999 asked for, at most 32767 on device rxe0"
absl::Status CheckLimit(const char* what, uint64_t asked, uint64_t limit,
                        const std::string& device);

// What can be said of memory that is to be registered without asking the kernel.
absl::Status CheckMemory(std::span<std::byte> memory, Access access,
                         const RegisterOptions& options);

// A limit of 0 asks for the standard one, or for the most that the device has.
QpLimits WithDefaults(QpLimits limits, const DeviceAttributes& device);
absl::Status CheckQueueLimits(const QpLimits& limits, const DeviceAttributes& attributes,
                              const std::string& device);

// What the provider has made behind a handle; null: nothing, or it is another provider's.
template <typename Impl, typename Handle>
Impl* Of(const Handle* handle) {
  return handle == nullptr ? nullptr : dynamic_cast<Impl*>(handle->impl());
}

// The queues of a queue pair that is made on `device` are there, and are that device's.
template <typename Cq, typename Srq, typename Device>
absl::Status CheckQueues(const QueuePairOptions& o, const Device* device) {
  const auto* send = Of<Cq>(o.send_cq);
  const auto* receive = Of<Cq>(o.receive_cq);
  if (send == nullptr || receive == nullptr) {
    return absl::InvalidArgumentError(
        "create queue pair: send_cq and receive_cq are both needed (they may be the same)");
  }
  if (send->device() != device || receive->device() != device) {
    return absl::InvalidArgumentError(
        "create queue pair: a completion queue belongs to another device");
  }
  if (o.shared_receive_queue == nullptr) return absl::OkStatus();
  const auto* srq = Of<Srq>(o.shared_receive_queue);
  if (srq != nullptr && srq->domain()->device() == device) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "create queue pair: its shared receive queue is closed or of another device");
}

}  // namespace verbena::provider
