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
#include "absl/status/statusor.h"
#include "transport/access.h"
#include "transport/completion_queue.h"
#include "transport/device.h"
#include "transport/options.h"
#include "transport/qp_state.h"
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

// `what`: "connect", "accept" or "reject".
absl::Status CheckPrivateData(const char* what, const std::string& data, uint64_t limit,
                              const std::string& device);
// Of a queue pair that is to be connected; `what`: "connect qp 0x12".
absl::Status CheckIdle(const std::string& what, QpState state, bool connecting);
// `what`: "connect ADDRESS"; `from`: what has the right device, "path" or "request".
absl::Status OtherDevice(const std::string& what, const char* from);
// No descriptor for `what` ("listen ADDRESS"); `error`: an errno.
absl::Status NoDescriptor(const std::string& what, int error);

// Of a completion queue that is made, or (`what`) "resize completion queue".
absl::Status CheckCqEntries(const char* what, uint32_t entries, uint32_t limit,
                            const std::string& device);
absl::Status MoreWaitsThan(uint32_t entries);   // Resize
absl::Status CheckNotify(const void* channel);  // RequestNotify of a queue with this one
absl::Status CheckSrqLimits(const SrqLimits& limits, const DeviceAttributes& attributes,
                            const std::string& device);
absl::Status CheckSrqLimit(uint32_t limit, uint32_t max_wr);  // the one that makes an event

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

// The channel of a completion queue that is made on `device`; null: none is asked for.
template <typename Channel, typename Device>
absl::StatusOr<Channel*> ChannelOf(const CqOptions& options, const Device* device) {
  auto* const channel = Of<Channel>(options.channel);
  if (options.channel == nullptr || (channel != nullptr && channel->device() == device)) {
    return channel;
  }
  return absl::InvalidArgumentError("completion queue: its channel is closed or of another device");
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
