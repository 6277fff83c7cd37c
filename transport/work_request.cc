// SPDX-License-Identifier: Apache-2.0
#include "transport/work_request.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena {
namespace {

// The code says what the caller can do: mend the call, wait, do without, or start anew.
absl::StatusCode CodeOf(PostError error) {
  switch (error) {
    case PostError::kNone:
      return absl::StatusCode::kOk;
    case PostError::kQueueFull:
      return absl::StatusCode::kResourceExhausted;
    case PostError::kInvalidState:
      return absl::StatusCode::kFailedPrecondition;
    case PostError::kTooManySges:
    case PostError::kInlineTooLong:
    case PostError::kInvalidOpcode:
    case PostError::kUsesSharedQueue:
    case PostError::kMessageTooLong:
    case PostError::kNoDestination:
      return absl::StatusCode::kInvalidArgument;
    case PostError::kUnsupported:
      return absl::StatusCode::kUnimplemented;
    case PostError::kDead:
      return absl::StatusCode::kUnavailable;
  }
  return absl::StatusCode::kInternal;
}

}  // namespace

const char* PostErrorText(PostError error) {
  switch (error) {
    case PostError::kNone:
      return "no error";
    case PostError::kQueueFull:
      return "the queue is full. Poll completions, then post the rest";
    case PostError::kInvalidState:
      return "the queue pair's state takes none: sends need RTS, receives at least INIT. Connect "
             "it first";
    case PostError::kTooManySges:
      return "more scatter/gather entries than the queue was made for. Raise max_send_sge, "
             "max_receive_sge or max_sge at creation, or post fewer";
    case PostError::kInlineTooLong:
      return "more inline bytes than the queue pair was made for. Raise QpLimits::max_inline, or "
             "post without kInline";
    case PostError::kInvalidOpcode:
      return "not an opcode of this type of queue pair, or flags or operands that the opcode does "
             "not take";
    case PostError::kUnsupported:
      return "the peer or the device cannot do this operation. See QueuePair::capabilities()";
    case PostError::kUsesSharedQueue:
      return "the queue pair takes its receives from a shared receive queue. Post them there";
    case PostError::kDead:
      return "the device is gone. Open a new Context";
    case PostError::kMessageTooLong:
      return "longer than a datagram may be. DeviceAttributes::max_datagram has the limit; send it "
             "in parts";
    case PostError::kNoDestination:
      return "a datagram needs SendWr::to with an open address handle of the queue pair's device";
  }
  return "?";
}

absl::Status PostResult::ToStatus() const {
  if (ok()) return absl::OkStatus();
  const std::string taken =
      accepted == 0 ? "post: the first request was refused: "
                    : absl::StrCat("post: ", accepted, " taken, the next request was refused: ");
  return absl::Status(CodeOf(error), absl::StrCat(taken, PostErrorText(error), "."));
}

}  // namespace verbena
