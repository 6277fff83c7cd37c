// SPDX-License-Identifier: Apache-2.0
// What the programs of this folder share: a measurement is two processes, forked before anything
// else happens, each pinned to a core, which share a page to meet on. The first one (the client)
// measures and prints one line of JSON.
//
// The line says besides how far its figure can be trusted: `probe_ns`, how long a cache line took
// from one core to the other before and after (virtual machines have slow phases), and `delayed`,
// the share of the time that the worse-off side was ready to run and did not (others are busy).
//
// What cannot be measured here is {"skipped": WHY} and exit status kSkipped.
#pragma once

#include <semaphore.h>

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
inline constexpr size_t kPage = 4096;          // bytes, in between
inline constexpr size_t kLarge = 1024 * 1024;  // bytes, where the bandwidth counts
inline constexpr int kSkipped = 77;

struct Options {
  std::string row;
  double seconds = 0.4;  // of measuring, the warm-up not counted
  std::array<int, 2> cores = {-1, -1};
  std::string address = "127.0.0.1";  // where the server listens
  std::string server_netns;           // a file: the network namespace that it goes to, if any
  std::string wire;                   // verbena_bench: "", "crc" or "plain", see asking_world.h
};

// What one side did, for the report: {name, count}.
struct Count {
  char name[24];
  uint64_t value;
};
using Counts = std::array<Count, 16>;  // unused ones have no name

// Whatever one side has to know of the other, for protocols without a way to say it.
struct Contact {
  std::atomic<bool> there{false};
  size_t size = 0;
  std::array<char, 512> bytes{};
};

// In memory that both processes map.
struct Shared {
  alignas(64) std::atomic<uint32_t> ball{0};  // of the probe: whose turn
  alignas(64) std::atomic<int> port{0};       // 0: the server does not listen yet
  alignas(64) std::atomic<bool> stop{false};  // whoever measures has done so
  std::atomic<bool> done{false};              // the server has stopped
  sem_t finished;                             // for a server that sleeps until the client is done
  std::array<Contact, 2> contacts{};          // of the server, of the client
  double bytes_per_second = 0;                // as the server saw it
  double bytes = 0;                           // in all, as the server saw it
  double cpu_seconds = 0;                     // of the server, while it worked
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
  std::function<std::string()> lacks = {};  // why it cannot run here; empty: it can
};

// Runs the row that the command line names and prints its line; the exit status.
//   PROGRAM ROW [--seconds S] [--cores A,B] [--address IP] [--netns FILE] [--wire NAME]
int Main(int argc, char** argv, const std::vector<Row>& rows);

uint64_t NowNs();     // CLOCK_MONOTONIC
double CpuSeconds();  // of this process so far, all threads, the kernel's part too

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

// Whole ones, in µs.
Result RoundTrip(Samples& round_trips);

// CPU seconds of both sides a GB; `own` are the client's.
Result CpuPerGb(double own, double bytes, const Shared& shared);

// A side that leaves its work to a child: counts that one's delay with its own. Call it when the
// child has ended and is not yet waited for.
void CountDelayOf(int pid);
// A side that leaves its work to threads of its own: counts the worst delay of any. Call it while
// they run.
void CountDelayOfThreads();

// A side that leaves its work to processes that are not its children: they say how long they were
// ready to run and did not, and it counts that.
uint64_t DelayNs();  // of this thread so far
void CountDelay(uint64_t ns);

[[noreturn]] void Die(const std::string& why);

// Swaps contacts: side 0 is the server.
void Tell(Shared& shared, int side, const void* bytes, size_t size);
const Contact& Hear(const Shared& shared, int side);

int WaitForPort(const Shared& shared);  // of the server

}  // namespace verbena::bench
