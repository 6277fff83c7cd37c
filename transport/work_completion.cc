// SPDX-License-Identifier: Apache-2.0
#include "transport/work_completion.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena {
namespace {

struct Row {
  const char* name;
  absl::StatusCode code;  // chosen by what the caller can do next
  const char* text;       // fact, then remedy
};

Row RowOf(WcStatus status) {
  switch (status) {
    case WcStatus::kSuccess:
      return {"SUCCESS", absl::StatusCode::kOk, "the request succeeded."};
    case WcStatus::kLocalLengthError:
      return {"LOC_LEN_ERR", absl::StatusCode::kInvalidArgument,
              "the message is longer than the receive that it met, or than the device's "
              "max_message. Post larger receives or send less at once."};
    case WcStatus::kLocalQpOperationError:
      return {"LOC_QP_OP_ERR", absl::StatusCode::kInternal,
              "the queue pair found itself inconsistent. Make a new one, and report this."};
    case WcStatus::kLocalProtectionError:
      return {"LOC_PROT_ERR", absl::StatusCode::kInvalidArgument,
              "a local entry's key is not registered in this protection domain, or its bounds or "
              "access do not allow the request. Check the Sge and the region's Access."};
    case WcStatus::kFlushed:
      return {"WR_FLUSH_ERR", absl::StatusCode::kUnavailable,
              "the queue pair is in ERR; the request was not attempted, or its fate is unknown. "
              "QueuePair::cause() says why. Reconnect and decide what to post again."};
    case WcStatus::kWindowBindError:
      return {"MW_BIND_ERR", absl::StatusCode::kInvalidArgument,
              "the window cannot be bound so: the region needs kWindowBind, the bounds and access "
              "asked for, and the same protection domain."};
    case WcStatus::kBadResponse:
      return {"BAD_RESP_ERR", absl::StatusCode::kInternal,
              "the peer's answer fits no request of ours. Reconnect; if it comes again, the "
              "peer's implementation is at fault."};
    case WcStatus::kLocalAccessError:
      return {"LOC_ACCESS_ERR", absl::StatusCode::kPermissionDenied,
              "the peer's write with immediate broke the protection of memory here. Exchange keys "
              "again after reconnecting."};
    case WcStatus::kRemoteInvalidRequest:
      return {"REM_INV_REQ_ERR", absl::StatusCode::kInvalidArgument,
              "the peer cannot take this request: its receive is too small, or the operation or "
              "its length is not allowed there. Check sizes and QueuePair::capabilities()."};
    case WcStatus::kRemoteAccessError:
      return {"REM_ACCESS_ERR", absl::StatusCode::kPermissionDenied,
              "the peer refused the key, its bounds or its access. Exchange keys again after "
              "reconnecting."};
    case WcStatus::kRemoteOperationError:
      return {"REM_OP_ERR", absl::StatusCode::kUnavailable,
              "the peer took the request and could not finish it. Its log says why; reconnect and "
              "try again."};
    case WcStatus::kRetryExceeded:
      return {"RETRY_EXC_ERR", absl::StatusCode::kUnavailable,
              "the peer does not answer any more. Is it up and the network whole? Reconnect."};
    case WcStatus::kRnrRetryExceeded:
      return {"RNR_RETRY_EXC_ERR", absl::StatusCode::kResourceExhausted,
              "the peer had no receive posted, however often it was asked. Post more there, or "
              "raise rnr_retry (7: for ever); reconnect."};
    case WcStatus::kGeneralError:
      return {"GENERAL_ERR", absl::StatusCode::kInternal,
              "the request failed for a reason without a name. QueuePair::cause() may have more."};
  }
  return {"?", absl::StatusCode::kInternal, "not a status that this version knows."};
}

}  // namespace

const char* WcStatusName(WcStatus status) { return RowOf(status).name; }

const char* WcStatusText(WcStatus status) { return RowOf(status).text; }

const char* WcOpcodeName(WcOpcode opcode) {
  switch (opcode) {
    case WcOpcode::kSend:
      return "Send";
    case WcOpcode::kWrite:
      return "Write";
    case WcOpcode::kRead:
      return "Read";
    case WcOpcode::kCompareSwap:
      return "CompareSwap";
    case WcOpcode::kFetchAdd:
      return "FetchAdd";
    case WcOpcode::kLocalInvalidate:
      return "LocalInvalidate";
    case WcOpcode::kBindWindow:
      return "BindWindow";
    case WcOpcode::kReceive:
      return "Receive";
    case WcOpcode::kReceiveWriteWithImm:
      return "ReceiveWriteWithImm";
  }
  return "?";
}

absl::Status WorkCompletion::ToStatus() const {
  if (ok()) return absl::OkStatus();
  const Row row = RowOf(status);
  std::string text =
      absl::StrCat("wr ", id, " on qp 0x", absl::Hex(qp_number), ": ", row.name, ": ", row.text);
  if (vendor_error != 0)
    absl::StrAppend(&text, " (provider's number 0x", absl::Hex(vendor_error), ")");
  return absl::Status(row.code, text);
}

}  // namespace verbena
