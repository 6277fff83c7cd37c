// SPDX-License-Identifier: Apache-2.0
// How the two sides of `verbena perf` agree. Integers are big-endian.
//
// Each of the client's connections carries a PerfRequest as private data; the first (index 0) opens
// a session at the server, which lends its memory in the answer, and the others join it. Work is
// done in legs: the client says on the first queue pair what comes next (a PerfLeg), the server
// answers with what it has used so far (a PerfUsage), and the operations of the leg follow on all
// queue pairs. Sends between plain iWARP ends need credits, since nothing makes a sender wait for
// receives there: the server sends a byte after each `credit` messages on a queue pair, and after
// the last. A leg without operations only asks for the usage; so the server's share of a leg is
// the difference of two answers. At the end the client disconnects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/verbena/cpu_meter.h"
#include "tools/verbena/tcp_facts.h"
#include "transport/memory.h"

namespace verbena::tool {

inline constexpr uint32_t kPerfPort = 7175;
inline constexpr uint32_t kMaxPerfSize = 64 << 20;  // bytes; a server lends twice that
inline constexpr uint32_t kMaxPerfWindow = 4096;
inline constexpr uint32_t kMaxPerfQps = 16384;
inline constexpr uint64_t kMaxPerfRounds = 1'000'000'000;  // of one leg
inline constexpr uint32_t kAtomicBytes = 8;

enum class PerfOp : uint8_t { kWrite = 1, kRead = 2, kSend = 3, kAtomic = 4 };
enum class PerfMode : uint8_t { kLatency = 1, kBandwidth = 2, kRate = 3 };
const char* PerfOpName(PerfOp op);        // "write"
const char* PerfModeName(PerfMode mode);  // "lat"

// 52 bytes {"VPRF", version 2, op 1, mode 1, events 1, size 4, window 4, queue pairs 4, index 4,
// session 8, RemoteBuffer 20}.
struct PerfRequest {
  PerfOp op = PerfOp::kWrite;
  PerfMode mode = PerfMode::kBandwidth;
  bool events = false;       // the server sleeps, too, instead of polling
  uint32_t size = 0;         // bytes of the largest operation
  uint32_t window = 0;       // operations outstanding at once on a queue pair
  uint32_t queue_pairs = 1;  // of the session
  uint32_t index = 0;        // of this one among them
  uint64_t session = 0;      // random
  RemoteBuffer lent;         // the client's memory: PerfLayout of `size`
};
std::string EncodePerfRequest(const PerfRequest& request);
// InvalidArgument says what the caller is, or what is out of bounds: fit for a reject.
absl::StatusOr<PerfRequest> DecodePerfRequest(absl::string_view bytes);

// Private data on accept: 28 bytes {"VPRF", version 2, 0 3, RemoteBuffer 20}.
std::string EncodePerfAnswer(const RemoteBuffer& lent);
absl::StatusOr<RemoteBuffer> DecodePerfAnswer(absl::string_view bytes);

// Both messages are kPerfControlBytes long, the rest zeros.
inline constexpr uint32_t kPerfControlBytes = 64;

// {"VLEG", size 4, rounds 8, credit 4}
struct PerfLeg {
  uint32_t size = 1;    // bytes of each operation
  uint64_t rounds = 0;  // operations on all queue pairs together; 0: none, the usage is asked for
  uint32_t credit = 0;  // 0: without
};
std::string EncodePerfLeg(const PerfLeg& leg);
// InvalidArgument unless it suits the request.
absl::StatusOr<PerfLeg> DecodePerfLeg(absl::string_view bytes, const PerfRequest& request);

// {"VUSE", send buffer 4, receive buffer 4, 0 4, CPU microseconds 8, cycles 8, congestion control
// 16}
struct PerfUsage {
  CpuUsage cpu;  // of the whole process, since it was started
  TcpFacts tcp;
};
std::string EncodePerfUsage(const PerfUsage& usage);
absl::StatusOr<PerfUsage> DecodePerfUsage(absl::string_view bytes);

// Both sides' memory: what is sent or read by the peer, what the peer's bytes land in, and a
// message each way.
struct PerfLayout {
  uint64_t area = 0;  // bytes of each of the first two

  explicit PerfLayout(uint32_t size);
  uint64_t source() const { return 0; }
  uint64_t landing() const { return area; }
  uint64_t said() const { return 2 * area; }
  uint64_t heard() const { return 2 * area + kPerfControlBytes; }
  uint64_t total() const { return 2 * area + 2 * kPerfControlBytes; }
};

}  // namespace verbena::tool
