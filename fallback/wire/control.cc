// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/control.h"

namespace verbena::wire {

Fault Invalid(const Control& control, uint32_t payload) {
  const bool nak = control.type == ControlType::kNak;
  if (control.type < ControlType::kAck || control.type > ControlType::kBye) {
    return {"control message of unknown type", error::kUnexpectedOpcode};
  }
  if (nak != (control.code != NakCode::kNone) || control.code > NakCode::kProtocol) {
    return {"control message with an unknown code", error::kUnexpectedOpcode};
  }
  if (!nak && payload != 0) {
    return {"control message with a payload that its type does not have", error::kTooLong};
  }
  if (control.type == ControlType::kRnrNak && control.value > kMaxRnrTimerCode) {
    return {"RNR NAK with a timer code beyond 31", error::kMessageOffset};
  }
  return {};
}

const char* ControlName(ControlType type) {
  switch (type) {
    case ControlType::kAck:
      return "ACK";
    case ControlType::kRnrNak:
      return "RNR-NAK";
    case ControlType::kResume:
      return "RESUME";
    case ControlType::kReady:
      return "READY";
    case ControlType::kNak:
      return "NAK";
    case ControlType::kBye:
      return "BYE";
  }
  return "unknown control message";
}

const char* NakText(NakCode code) {
  switch (code) {
    case NakCode::kNone:
      return "no error";
    case NakCode::kRemoteAccess:
      return "remote access error";
    case NakCode::kRemoteInvalidRequest:
      return "remote invalid request";
    case NakCode::kRemoteOperation:
      return "remote operation error";
    case NakCode::kProtocol:
      return "protocol error";
  }
  return "unknown error";
}

}  // namespace verbena::wire
