// SPDX-License-Identifier: Apache-2.0
// What the programs of tests/bench/compare_rpc have in common: sizes, when a row is over, and what
// a call costs.
#pragma once

#include <semaphore.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "tests/bench/sides.h"

namespace verbena::bench {

inline constexpr size_t kInFlight = 512;            // small calls
inline constexpr size_t kBlock = size_t{16} << 20;  // bytes of a large one …
inline constexpr size_t kBlocksInFlight = 4;        // … which are so many at once
inline constexpr size_t kCallers = 16;              // threads that call at once
inline constexpr unsigned kCallsALook = 32;         // at the clock, where many are in flight

// What one side spent between its making and Report(); `system_calls` counts them.
class Cost {
 public:
  using Counter = uint64_t (*)();
  explicit Cost(Counter system_calls) : counter_(system_calls) {}

  Counts Report(uint64_t calls) const {
    const double cpu = CpuSeconds() - cpu_;
    return {{{"calls", calls},
             {"cpu_ns", static_cast<uint64_t>(cpu * 1e9)},
             {"system_calls", counter_() - before_}}};
  }

 private:
  const Counter counter_;
  const double cpu_ = CpuSeconds();
  const uint64_t before_ = counter_();
};

// Counts the calls of a row that come back, on one thread, until its time is over.
class Progress {
 public:
  explicit Progress(double seconds, unsigned look_every = 1)
      : clock_(seconds), look_every_(look_every) {}

  // One more came back; true: and another may be started.
  bool Next() {
    if (++calls_ % look_every_ != 0) return !over_;
    const uint64_t now = NowNs();
    if (begin_ == 0) {
      if (!clock_.warm(now)) return true;
      begin_ = now;
      before_ = calls_;
    } else if (!over_) {
      end_ = now;
      counted_ = calls_ - before_;
      over_ = clock_.over(now);
    }
    return !over_;
  }
  bool over() const { return over_; }
  uint64_t calls() const { return calls_; }

  // Millions of calls a second, or with `bytes` of each GB/s.
  Result Figure(size_t bytes = 0) const {
    if (counted_ == 0) Die("nothing was measured");
    Result result;
    result.unit = bytes == 0 ? "M/s" : "GB/s";
    result.value = static_cast<double>(counted_) * (bytes == 0 ? 1e3 : static_cast<double>(bytes)) /
                   static_cast<double>(end_ - begin_);
    return result;
  }

 private:
  const Clock clock_;
  const unsigned look_every_;
  bool over_ = false;
  uint64_t calls_ = 0, before_ = 0, counted_ = 0;
  uint64_t begin_ = 0, end_ = 0;
};

// One call after the other, `call`; what each took.
template <typename Call>
Result OneByOne(const Options& options, Cost::Counter counter, Call call) {
  Samples samples;
  const Cost cost(counter);
  const Clock clock(options.seconds);
  uint64_t calls = 0;
  for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty(); ++calls) {
    call();
    const uint64_t end = NowNs();
    if (clock.warm(begin)) samples.Add(end - begin);
    begin = end;
  }
  Result result = RoundTrip(samples);
  result.client = cost.Report(calls);
  return result;
}

// The same by each of kCallers threads at once; how many come back.
template <typename Call>
Result ByThreads(const Options& options, Cost::Counter counter, Call call) {
  const Clock clock(options.seconds);
  const Cost cost(counter);
  std::atomic<uint64_t> calls = 0, warm = 0;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kCallers; ++i) {
    threads.emplace_back([&] {
      for (uint64_t now = NowNs(); !clock.over(now); now = NowNs()) {
        call();
        calls.fetch_add(1, std::memory_order_relaxed);
        if (clock.warm(now)) warm.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Result result;
  result.unit = "M/s";
  result.value = static_cast<double>(warm.load()) / options.seconds / 1e6;
  result.client = cost.Report(calls.load());
  return result;
}

// The server sleeps while its library's threads work.
inline void ServeUntilOver(Shared& shared, int port, Cost::Counter counter) {
  const Cost cost(counter);
  shared.port.store(port, std::memory_order_release);
  while (sem_wait(&shared.finished) != 0) {
  }
  CountDelayOfThreads();
  shared.server = cost.Report(0);
}

}  // namespace verbena::bench
