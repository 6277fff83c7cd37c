// SPDX-License-Identifier: Apache-2.0
// What completion queues deliver: ibv_poll_cq(3), ibv_wc_status. Plain values.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "transport/work_request.h"

namespace verbena {

enum class WcStatus : uint8_t {
  kSuccess,
  kLocalLengthError,       // LOC_LEN_ERR: receive too small, or message over the maximum
  kLocalQpOperationError,  // LOC_QP_OP_ERR
  kLocalProtectionError,   // LOC_PROT_ERR: a local key, its bounds or its access
  kFlushed,                // WR_FLUSH_ERR: the queue pair is in ERR; not attempted or unknown
  kWindowBindError,        // MW_BIND_ERR
  kBadResponse,            // BAD_RESP_ERR
  kLocalAccessError,       // LOC_ACCESS_ERR
  kRemoteInvalidRequest,   // REM_INV_REQ_ERR
  kRemoteAccessError,      // REM_ACCESS_ERR: key, bounds or access at the target
  kRemoteOperationError,   // REM_OP_ERR: the target could not finish it
  kRetryExceeded,          // RETRY_EXC_ERR: the peer vanished
  kRnrRetryExceeded,       // RNR_RETRY_EXC_ERR: the peer never posted a receive
  kGeneralError,           // GENERAL_ERR
};

enum class WcOpcode : uint8_t {
  kSend,
  kWrite,
  kRead,
  kCompareSwap,
  kFetchAdd,
  kLocalInvalidate,
  kBindWindow,
  kReceive,
  kReceiveWriteWithImm,
};

// What the completion of a request is of.
constexpr WcOpcode CompletionOf(Opcode opcode) {
  constexpr WcOpcode kCompletes[kOpcodeCount] = {
      WcOpcode::kSend,        WcOpcode::kSend,     WcOpcode::kSend,
      WcOpcode::kWrite,       WcOpcode::kWrite,    WcOpcode::kRead,
      WcOpcode::kCompareSwap, WcOpcode::kFetchAdd, WcOpcode::kLocalInvalidate,
      WcOpcode::kBindWindow,
  };
  return kCompletes[static_cast<uint8_t>(opcode)];
}

// `opcode`, `length` and the flags are defined only if ok(), as in verbs.
struct WorkCompletion {
  uint64_t id = 0;
  WcStatus status = WcStatus::kSuccess;
  WcOpcode opcode = WcOpcode::kSend;
  bool has_immediate = false;
  bool has_invalidated = false;  // `immediate_or_key` is a key of ours that the peer invalidated
  uint32_t length = 0;           // bytes received, read, or written by the peer's WriteWithImm
  uint32_t immediate_or_key = 0;
  uint32_t qp_number = 0;     // defined for errors too
  uint32_t vendor_error = 0;  // the provider's own number for it; 0: none
  // Of receives of QpType::kUd alone:
  uint32_t source_qp : 24 = 0;  // the sender's number
  bool has_grh : 1 = false;     // ReadGrh of the receive's first kGrhBytes says more

  bool ok() const { return status == WcStatus::kSuccess; }
  // OK, or status, request id, queue pair and what to do next, as a sentence.
  absl::Status ToStatus() const;
};

const char* WcStatusName(WcStatus status);  // "REM_ACCESS_ERR"
const char* WcStatusText(WcStatus status);  // a sentence
const char* WcOpcodeName(WcOpcode opcode);  // "Write"

}  // namespace verbena
