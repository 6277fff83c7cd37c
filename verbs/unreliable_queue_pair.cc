// SPDX-License-Identifier: Apache-2.0
#include "verbs/unreliable_queue_pair.h"

#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace verbena::verbs {

QpCounters UnreliableQueuePair::counters() const {
  QpCounters c = QueuePair::counters();
  c.rnr_naks_received = c.rnr_naks_sent = 0;  // of the port's other queue pairs
  return c;
}

// The device's word is taken for whether it was the send queue or the queue pair.
void UnreliableQueuePair::CompletionFailed(WcStatus status, const char* what, uint32_t key) {
  const bool send = std::string_view(what) != WcOpcodeName(WcOpcode::kReceive);
  if (status == WcStatus::kFlushed) {
    if (state_ != QpState::kErr && !(send && state_ == QpState::kSqe)) FailedByDevice();
    return;
  }
  // A shared receive that a dropped message had taken (IBTA 9.9.3, class E): nothing else happened.
  const bool dropped =
      status == WcStatus::kRemoteInvalidRequest || status == WcStatus::kRemoteAccessError;
  if (!send && srq_ != nullptr && dropped) return;
  if (!send || state_ == QpState::kErr || DeviceState() != QpState::kSqe) {
    return FailedWith(Failure(status, what, key,
                              type_ == QpType::kUd ? "and reset the queue pair"
                                                   : "reset the queue pair and connect again"));
  }
  cause_ = Failure(status, what, key, "and modify the queue pair to RTS to go on");
  SetState(QpState::kSqe);
  device_->service().Changed();
}

void UnreliableQueuePair::LeftSqe() {
  send_ledger_->ForgetFailure();
  cause_ = absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<provider::QueuePair>> UnreliableConnection::Create(
    ProtectionDomain* domain, const QueuePairOptions& options) {
  if (absl::Status s = CheckOptions(domain, options); !s.ok()) return s;
  return Made(std::make_unique<UnreliableConnection>(domain, options));
}

Capabilities UnreliableConnection::CapabilitiesOn(const Device& device) {
  Capabilities c = device.capabilities();
  c.atomics = c.global_atomics = c.send_with_invalidate = false;
  c.rnr = c.remote_completion = c.refusal_reasons = false;
  // Soft-RoCE binds them, and then has no local invalidation to bind them again (Linux 6.1
  // rxe_opcode.c rxe_wr_opcode_info): it fails the queue pair.
  c.memory_windows = c.memory_windows && !device.software();
  return c;
}

PostError UnreliableConnection::Build(const SendWr& wr, uint64_t position, ibv_send_wr* out,
                                      ibv_sge* own) {
  if (!UnreliableToo(wr.opcode)) return PostError::kInvalidOpcode;
  return QueuePair::Build(wr, position, out, own);
}

// From SQE it is the state first: no attribute is set there (ibv_modify_qp(3)).
absl::Status UnreliableConnection::Move(QpState to, const QpModify& change) {
  if (state_ == QpState::kSqe && to == QpState::kRts) {
    if (const int error = ToRts(); error != 0) {
      return ErrnoStatus(error, absl::StrCat("modify ", Name(), " from SQE to RTS"),
                         "Reset it and connect again.");
    }
    LeftSqe();
    SetState(QpState::kRts);
  }
  return QueuePair::Move(to, change);
}

}  // namespace verbena::verbs
