// SPDX-License-Identifier: Apache-2.0
#include "connect/reason.h"

namespace verbena::connect {

const char* ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kNone:
      return "none";
    case Reason::kOff:
      return "off";
    case Reason::kNoDevice:
      return "no-device";
    case Reason::kNoCommonLink:
      return "no-common-link";
    case Reason::kBusy:
      return "busy";
    case Reason::kFailed:
      return "failed";
    case Reason::kMalformed:
      return "malformed";
    case Reason::kUnreachable:
      return "unreachable";
    case Reason::kRefused:
      return "refused";
    case Reason::kNotUnderstood:
      return "not-understood";
    case Reason::kNotAsked:
      return "not-asked";
  }
  return "unknown";
}

}  // namespace verbena::connect
