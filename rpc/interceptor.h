// SPDX-License-Identifier: Apache-2.0
// Functions that see each call of a channel or a server begin and end: for tracing, counting,
// authentication.
//
//   options.interceptors.push_back([&](ClientContext& call) -> absl::StatusOr<AtEnd> {
//     call.AddMetadata("traceparent", …);
//     return [span = tracer.Begin(call.method())](const CallOutcome& end) { span.End(end.status);
//     };
//   });
//
// They run in their order when a call begins, and what they returned in the opposite order when it
// ends. One that answers with a status refuses the call, which ends with that; those behind it do
// not see it. nullptr: it does not want to know of the end. They do not block: a channel's run on
// the thread that makes the call, and at its end on the one that moves the channel; a server's
// where its handlers do.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace verbena::rpc {

class ClientContext;
class ServerContext;

struct CallOutcome {
  const absl::Status& status;  // as the caller gets it
  uint64_t sent_bytes;         // of messages as they travel, of a stream all of them; no bulk data
  uint64_t received_bytes;
  absl::Duration time;  // since its interceptors began
};
using AtEnd = std::function<void(const CallOutcome&)>;

using ClientInterceptor = std::function<absl::StatusOr<AtEnd>(ClientContext& call)>;
using ServerInterceptor = std::function<absl::StatusOr<AtEnd>(ServerContext& call)>;

// What a call keeps for its interceptors, where there are some.
struct Interception {
  std::vector<AtEnd> at_end = {};
  int64_t begun_ns = 0;
  const std::string* peer = nullptr;  // a channel's: its name
  uint64_t sent_bytes = 0;            // both but for a stream's messages
  uint64_t received_bytes = 0;
  std::optional<absl::Status> ended = std::nullopt;  // a server's
};

// The last one first.
inline void RunAtEnd(std::vector<AtEnd> all, const CallOutcome& outcome) {
  for (auto at_end = all.rbegin(); at_end != all.rend(); ++at_end) (*at_end)(outcome);
}

}  // namespace verbena::rpc
