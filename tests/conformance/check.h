// SPDX-License-Identifier: Apache-2.0
// How a case says what it expects: Check() unwraps or ends the case, matchers compare statuses and
// completions and explain themselves.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transport/events.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena {

// gtest prints these when an expectation fails.
void PrintTo(const WorkCompletion& wc, std::ostream* out);
void PrintTo(const PostResult& result, std::ostream* out);
void PrintTo(const Event& event, std::ostream* out);
void PrintTo(WcStatus status, std::ostream* out);

namespace conformance {

// Where a helper was called, so that a failure points at the case: `Line line = Line::Here()`.
struct Line {
  const char* file;
  int number;
  static constexpr Line Here(const char* file = __builtin_FILE(), int number = __builtin_LINE()) {
    return {file, number};
  }
};

// Reports a failure at `line` and leaves the case (objects are released on the way out).
[[noreturn]] void Stop(const std::string& message, Line line);

template <typename T>
T Check(absl::StatusOr<T> value, Line line = Line::Here()) {
  if (!value.ok()) Stop(value.status().ToString(), line);
  return *std::move(value);
}
inline void Check(const absl::Status& status, Line line = Line::Here()) {
  if (!status.ok()) Stop(status.ToString(), line);
}
inline void Check(const PostResult& result, Line line = Line::Here()) {
  if (!result.ok()) Stop(result.ToStatus().ToString(), line);
}

inline absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// A status, or what a StatusOr holds instead of a value, of this code.
MATCHER_P(StatusIs, code, "is " + absl::StatusCodeToString(code)) {
  *result_listener << "which is " << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code;
}
// And its message matches.
MATCHER_P2(StatusIs, code, message,
           "is " + absl::StatusCodeToString(code) + " with a message that " +
               ::testing::DescribeMatcher<std::string>(message)) {
  *result_listener << "which is " << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         ::testing::Value(std::string(StatusOf(arg).message()), message);
}

// A completion of request `id` with `status`.
MATCHER_P2(Completed, id, status,
           std::string("completes request ") + std::to_string(id) + " with " +
               WcStatusName(status)) {
  return arg.id == static_cast<uint64_t>(id) && arg.status == status;
}
inline auto Succeeded(uint64_t id) { return Completed(id, WcStatus::kSuccess); }
inline auto Flushed(uint64_t id) { return Completed(id, WcStatus::kFlushed); }

// A post of which `accepted` requests were taken before `error`.
MATCHER_P2(Posted, accepted, error,
           "accepts " + std::to_string(accepted) + " and says " + PostErrorText(error)) {
  return arg.accepted == static_cast<size_t>(accepted) && arg.error == error;
}
inline auto Refused(PostError error) { return Posted(0, error); }

}  // namespace conformance
}  // namespace verbena
