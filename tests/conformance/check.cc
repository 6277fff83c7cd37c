// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/check.h"

namespace verbena {

void PrintTo(const WorkCompletion& wc, std::ostream* out) {
  *out << "{id " << wc.id << ", " << WcStatusName(wc.status);
  if (wc.ok()) *out << ", " << WcOpcodeName(wc.opcode) << ", length " << wc.length;
  if (wc.has_immediate) *out << ", immediate " << wc.immediate_or_key;
  if (wc.has_invalidated) *out << ", invalidated key " << wc.immediate_or_key;
  *out << ", qp " << wc.qp_number << ", vendor error " << wc.vendor_error << "}";
}

void PrintTo(const PostResult& result, std::ostream* out) {
  *out << "{accepted " << result.accepted << ", " << PostErrorText(result.error) << "}";
}

void PrintTo(const Event& event, std::ostream* out) {
  *out << "{" << EventTypeName(event.type) << ", context " << event.context << ", qp "
       << event.qp_number << ", " << event.status.ToString() << "}";
}

void PrintTo(WcStatus status, std::ostream* out) { *out << WcStatusName(status); }

namespace conformance {

void Stop(const std::string& message, Line line) {
  ADD_FAILURE_AT(line.file, line.number) << message;
  // gtest ends the case here and reports nothing more for this exception.
  throw testing::AssertionException(testing::TestPartResult(
      testing::TestPartResult::kFatalFailure, line.file, line.number, message.c_str()));
}

}  // namespace conformance
}  // namespace verbena
