// SPDX-License-Identifier: Apache-2.0
// How the two sides of `verbena perf` agree. The client's private data is a PerfRequest, the
// server's answer lends its memory; when the client has measured all it sends an empty message, and
// the server answers with a PerfResult. Integers are big-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "transport/memory.h"

namespace verbena::tool {

inline constexpr uint32_t kPerfPort = 7175;
inline constexpr uint32_t kMaxPerfSize = 64 << 20;  // bytes; a server lends twice that
inline constexpr uint32_t kMaxPerfWindow = 4096;
inline constexpr uint32_t kMaxPerfRounds = 1'000'000'000;

enum class PerfOp : uint8_t { kWrite = 1, kRead = 2, kSend = 3 };
enum class PerfMode : uint8_t { kLatency = 1, kBandwidth = 2 };
const char* PerfOpName(PerfOp op);        // "write"
const char* PerfModeName(PerfMode mode);  // "lat"

// Private data on connect: 44 bytes {"VPRF", version 1, op 1, mode 1, 0, size 4, window 4, rounds
// 4, 0 4, RemoteBuffer 20}.
struct PerfRequest {
  PerfOp op = PerfOp::kWrite;
  PerfMode mode = PerfMode::kBandwidth;
  uint32_t size = 0;    // bytes of an operation
  uint32_t window = 0;  // operations outstanding at once
  uint32_t rounds = 0;  // operations in all, those that warm up included
  RemoteBuffer lent;    // the client's memory: PerfLayout of `size`
};
std::string EncodePerfRequest(const PerfRequest& request);
// InvalidArgument says what the caller is, or what is out of bounds: fit for a reject.
absl::StatusOr<PerfRequest> DecodePerfRequest(absl::string_view bytes);

// Private data on accept: 28 bytes {"VPRF", version 1, 0 3, RemoteBuffer 20}.
std::string EncodePerfAnswer(const RemoteBuffer& lent);
absl::StatusOr<RemoteBuffer> DecodePerfAnswer(absl::string_view bytes);

// The last message: 8 bytes {microseconds 8}.
struct PerfResult {
  double cpu_seconds = 0;
};
std::string EncodePerfResult(const PerfResult& result);
PerfResult DecodePerfResult(absl::string_view bytes);  // zeros if it is too short
inline constexpr uint32_t kPerfResultBytes = 8;

// Both sides' memory: what is sent or read by the peer, then what the peer's bytes land in.
struct PerfLayout {
  uint64_t area = 0;  // bytes of each half

  explicit PerfLayout(uint32_t size);
  uint64_t source() const { return 0; }
  uint64_t landing() const { return area; }
  uint64_t total() const { return 2 * area; }
};

}  // namespace verbena::tool
