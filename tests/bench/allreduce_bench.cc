// SPDX-License-Identifier: Apache-2.0
// All-reduce by examples/ml on kernel TCP, two ranks that spin: what tests/bench/compare_allreduce
// holds against Open MPI.
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "examples/ml/group.h"
#include "tests/bench/rpc_meter.h"
#include "tests/bench/system_calls.h"

namespace verbena::bench {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(10);  // before sides.h's own, to say what hangs

void Check(const absl::Status& status) {
  if (!status.ok()) Die(std::string(status.message()));
}

std::unique_ptr<ml::Group> Join(const std::string& folder, int rank) {
  auto board = ml::OpenBoard("folder:" + folder);
  Check(board.status());
  auto group = ml::Group::Join(**board, {.rank = rank,
                                         .size = 2,
                                         .wait = ml::Wait::kSpin,
                                         .deadline = kDeadline,
                                         .context = {.device = "tcp", .rdma = Rdma::kOff}});
  Check(group.status());
  return *std::move(group);
}

// Sums in place. The first element of the client's says whether it was the last one.
void Reduce(ml::Group& group, size_t bytes, const std::function<bool()>& last,
            const std::function<void()>& done) {
  std::vector<float> tensor(bytes / sizeof(float), 1e-3f);
  const auto memory = std::as_writable_bytes(std::span(tensor));
  const auto region = group.Register(memory, true);
  Check(region.status());
  do {
    tensor[0] = last() ? 1.0f : 0.0f;
    Check(group.AllReduce(ml::Dtype::kFloat32, {memory, &*region}, {memory, &*region}));
    done();
  } while (tensor[0] == 0);
}

Counts Spent(const Cost& cost, const ml::Group& group, uint64_t calls) {
  Counts counts = cost.Report(calls);
  counts[3] = {"bytes_copied", group.counters().bytes_copied};
  return counts;
}

void Serve(size_t bytes, Shared& shared) {
  const Contact& folder = Hear(shared, 1);
  const auto group = Join(std::string(folder.bytes.data(), folder.size), 1);
  const Cost cost(SystemCalls);
  Reduce(
      *group, bytes, [] { return false; }, [] {});
  shared.server = Spent(cost, *group, 0);
}

Result Measure(size_t bytes, const Options& options, Shared& shared) {
  // A new one: what a run left behind that was killed is in nobody's way.
  std::string folder = std::filesystem::temp_directory_path() / "verbena-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) Die("no folder to meet in");
  Tell(shared, 1, folder.data(), folder.size());
  const auto group = Join(folder, 0);
  std::error_code gone;
  std::filesystem::remove_all(folder, gone);
  Samples samples;
  uint64_t calls = 0;
  const Cost cost(SystemCalls);
  const Clock clock(options.seconds);
  uint64_t begin = NowNs();
  Reduce(
      *group, bytes, [&] { return clock.over(begin) && !samples.empty(); },
      [&] {
        ++calls;
        const uint64_t end = NowNs();
        if (clock.warm(begin)) samples.Add(end - begin);
        begin = end;
      });
  Result result = RoundTrip(samples);
  result.client = Spent(cost, *group, calls);
  return result;
}

Row ReduceRow(const char* name, size_t bytes) {
  return {
      name, [bytes](const Options&, Shared& shared) { Serve(bytes, shared); },
      [bytes](const Options& options, Shared& shared) { return Measure(bytes, options, shared); }};
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using verbena::bench::ReduceRow;
  return verbena::bench::Main(
      argc, argv,
      {ReduceRow("reduce_8", 8), ReduceRow("reduce_64k", 64u << 10),
       ReduceRow("reduce_1m", 1u << 20), ReduceRow("reduce_64m", 64u << 20)});
}
