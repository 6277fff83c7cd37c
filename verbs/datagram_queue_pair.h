// SPDX-License-Identifier: Apache-2.0
// A queue pair of unreliable datagrams on a device (RoCE). It has no peer: RTR and RTS are asked
// for, and each send names an address handle. Receives and completions, the ledgers, ERR and RESET
// are those of QueuePair; its sends take no short way, and its receives tell who sent them, so that
// their completions are polling.cc's (Ledger::kOdd).
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "verbs/membership.h"
#include "verbs/unreliable_queue_pair.h"

namespace verbena::verbs {

class DatagramQueuePair final : public UnreliableQueuePair {
 public:
  static absl::StatusOr<std::unique_ptr<provider::QueuePair>> Create(
      ProtectionDomain* domain, const QueuePairOptions& options);
  DatagramQueuePair(ProtectionDomain* domain, const QueuePairOptions& options);

  // provider::QueuePair
  absl::Status Close() override;
  PostResult PostSend(std::span<const SendWr> requests) override { return PostBatch(requests); }
  absl::Status Modify(const QpModify& change) override;
  QpAttributes Query() const override;
  Capabilities capabilities() const override;
  absl::Status Disconnect() override;
  absl::StatusOr<Contact> contact() override;
  absl::Status Connect(const Contact& peer, const ConnectParameters& parameters) override;
  absl::Status AttachMulticast(const std::string& group) override;
  absl::Status DetachMulticast(const std::string& group) override;

 private:
  PostError Build(const SendWr& wr, uint64_t position, ibv_send_wr* out, ibv_sge* own) override;
  absl::Status Move(QpState to, const QpModify& change) override;
  int FillInit(ibv_qp_attr* attributes) const override;
  int MoveDevice(QpState to, bool new_qkey);
  void LeaveGroups();

  const uint32_t max_datagram_;
  std::atomic<uint32_t> qkey_{0};
  std::mutex groups_mutex_;
  std::map<Ip, std::unique_ptr<Membership>> groups_;
};

}  // namespace verbena::verbs
