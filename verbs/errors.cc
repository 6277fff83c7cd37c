// SPDX-License-Identifier: Apache-2.0
#include "verbs/errors.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace verbena::verbs {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case EINVAL:
    case EFAULT:
    case EMSGSIZE:
    case ERANGE:
      return absl::StatusCode::kInvalidArgument;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOSPC:
      return absl::StatusCode::kResourceExhausted;
    case EBUSY:
      return absl::StatusCode::kFailedPrecondition;
    case EPERM:
    case EACCES:
      return absl::StatusCode::kPermissionDenied;
    case EOPNOTSUPP:
    case ENOSYS:
      return absl::StatusCode::kUnimplemented;
    case ETIMEDOUT:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

}  // namespace

absl::Status ErrnoStatus(int error, const std::string& what, const std::string& remedy) {
  return absl::Status(CodeOf(error), absl::StrCat(what, ": ", std::strerror(error), " (errno ",
                                                  error, "). ", remedy));
}

PostError PostErrorOf(int error) {
  switch (error) {
    case ENOMEM:
    case ENOSPC:
    case EAGAIN:
      return PostError::kQueueFull;
    case EOPNOTSUPP:
    case ENOSYS:
      return PostError::kUnsupported;
    case EIO:
    case ENODEV:
      return PostError::kDead;
    default:
      return PostError::kInvalidOpcode;
  }
}

WcStatus WcStatusOf(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_SUCCESS:
      return WcStatus::kSuccess;
    case IBV_WC_LOC_LEN_ERR:
      return WcStatus::kLocalLengthError;
    case IBV_WC_LOC_QP_OP_ERR:
      return WcStatus::kLocalQpOperationError;
    case IBV_WC_LOC_PROT_ERR:
      return WcStatus::kLocalProtectionError;
    case IBV_WC_WR_FLUSH_ERR:
      return WcStatus::kFlushed;
    case IBV_WC_MW_BIND_ERR:
      return WcStatus::kWindowBindError;
    case IBV_WC_BAD_RESP_ERR:
      return WcStatus::kBadResponse;
    case IBV_WC_LOC_ACCESS_ERR:
      return WcStatus::kLocalAccessError;
    case IBV_WC_REM_INV_REQ_ERR:
      return WcStatus::kRemoteInvalidRequest;
    case IBV_WC_REM_ACCESS_ERR:
      return WcStatus::kRemoteAccessError;
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
      return WcStatus::kRemoteOperationError;
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
      return WcStatus::kRetryExceeded;
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return WcStatus::kRnrRetryExceeded;
    default:
      return WcStatus::kGeneralError;
  }
}

}  // namespace verbena::verbs
