// SPDX-License-Identifier: Apache-2.0
// What the programs of this folder share: a measurement is two processes, forked before anything
// else happens, each pinned to a core, which share a page to meet on. The first one (the client)
// measures and prints one line of JSON.
//
// The line says besides how far its figure can be trusted: `probe_ns`, how long a cache line took
// from one core to the other before and after (virtual machines have slow phases), and `delayed`,
// the share of the time that the worse-off side was ready to run and did not (others are busy).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace verbena::bench {

inline constexpr size_t kSmall = 8;            // bytes of a ping
inline constexpr size_t kMessage = 64;         // bytes, where the rate counts
inline constexpr size_t kLarge = 1024 * 1024;  // bytes, where the bandwidth counts

struct Options {
  std::string row;
  double seconds = 0.4;  // of measuring, the warm-up not counted
  std::array<int, 2> cores = {-1, -1};
};

// What one side did, for the report: {name, count}.
struct Count {
  char name[24];
  uint64_t value;
};
using Counts = std::array<Count, 16>;  // unused ones have no name

// In memory that both processes map.
struct Shared {
  alignas(64) std::atomic<uint32_t> ball{0};  // of the probe: whose turn
  alignas(64) std::atomic<int> port{0};       // 0: the server does not listen yet
  alignas(64) std::atomic<bool> stop{false};  // whoever measures has done so
  std::atomic<bool> done{false};              // the server has stopped
  double bytes_per_second = 0;                // as the server saw it
  double delayed = 0;                         // of the server
  Counts server{};
};

struct Result {
  const char* unit = "";
  double value = 0;
  double p99 = 0;  // 0: the row has none
  Counts client{};
};

// A row: what the server does, and what the client does and measures.
struct Row {
  const char* name;
  std::function<void(const Options&, Shared&)> serve;
  std::function<Result(const Options&, Shared&)> measure;
};

// Runs the row that the command line names and prints its line; the exit status.
//   PROGRAM ROW [--seconds S] [--cores A,B]
int Main(int argc, char** argv, const std::vector<Row>& rows);

uint64_t NowNs();  // CLOCK_MONOTONIC

// The time that a row has: some to warm up, then `seconds`.
class Clock {
 public:
  explicit Clock(double seconds);
  bool warm(uint64_t now) const { return now >= warm_; }
  bool over(uint64_t now) const { return now >= end_; }

 private:
  uint64_t warm_;
  uint64_t end_;
};

// Durations in ns, to take percentiles of.
class Samples {
 public:
  Samples() { all_.reserve(kMost); }
  void Add(uint64_t ns) {
    if (all_.size() < kMost) all_.push_back(static_cast<uint32_t>(ns));
  }
  bool empty() const { return all_.empty(); }
  double Percentile(double p);  // 0 to 100

 private:
  static constexpr size_t kMost = 4'000'000;
  std::vector<uint32_t> all_;
};

// Half round trips, in µs.
Result Latency(Samples& round_trips);

[[noreturn]] void Die(const std::string& why);

int WaitForPort(const Shared& shared);  // of the server

}  // namespace verbena::bench
