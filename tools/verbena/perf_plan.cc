// SPDX-License-Identifier: Apache-2.0
// From options to what is measured.
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tools/verbena/perf.h"

namespace verbena::tool {
namespace {

constexpr uint32_t kLatencyIterations = 10'000;
constexpr uint64_t kBandwidthBytes = 1'000'000'000;
constexpr double kShortly = 0.25;  // seconds of each size in a sweep, and of a rate

// "64K" is 65536. 0: not a size.
uint32_t ParseSize(absl::string_view text) {
  uint64_t unit = 1;
  if (!text.empty() && (text.back() == 'K' || text.back() == 'k')) unit = 1 << 10;
  if (!text.empty() && (text.back() == 'M' || text.back() == 'm')) unit = 1 << 20;
  if (unit > 1) text.remove_suffix(1);
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number > kMaxPerfSize) return 0;
  return number * unit > kMaxPerfSize ? 0 : static_cast<uint32_t>(number * unit);
}

PerfOp OpOf(const std::string& name) {
  for (PerfOp op : {PerfOp::kWrite, PerfOp::kRead, PerfOp::kSend}) {
    if (name == PerfOpName(op)) return op;
  }
  return PerfOp::kAtomic;
}

PerfMode ModeOf(const std::string& name) {
  for (PerfMode mode : {PerfMode::kLatency, PerfMode::kBandwidth}) {
    if (name == PerfModeName(mode)) return mode;
  }
  return PerfMode::kRate;
}

std::string DefaultSize(PerfOp op, PerfMode mode) {
  if (op == PerfOp::kAtomic || mode == PerfMode::kLatency) return "8";
  return mode == PerfMode::kRate ? "64" : "65536";
}

absl::Status CheckTogether(const PerfOptions& options, const PerfPlan& plan) {
  const bool latency = plan.mode == PerfMode::kLatency;
  const bool only_8 = plan.sizes.size() == 1 && plan.sizes[0] == kAtomicBytes;
  const char* problem = nullptr;
  if (plan.op == PerfOp::kAtomic && !only_8) {
    problem = "--op atomic works on 8 bytes: leave --size out";
  } else if (options.iterations > 0 && options.seconds > 0) {
    problem = "--iterations and --seconds both say how long: give one";
  } else if (plan.events && latency && plan.op == PerfOp::kWrite) {
    problem =
        "--events does not go with --op write --mode lat: the target of a write has no completion "
        "to sleep for. Use --op send";
  } else if (!options.hgrm.empty() && (!latency || plan.sizes.size() > 1)) {
    problem = "--hgrm takes the latencies of one size: use it with --mode lat and one --size";
  } else if (latency && options.post_list > 1) {
    problem = "--post-list goes with --mode bw and rate: lat posts one at a time";
  } else if (plan.post_list > plan.window) {
    problem = "--post-list is at most --window: so many are outstanding at once";
  }
  return problem == nullptr ? absl::OkStatus() : absl::InvalidArgumentError(problem);
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> ParseSizes(const std::string& text) {
  const std::string range = text == "all" ? absl::StrCat("1-", kMaxPerfSize) : text;
  const size_t dash = range.find('-');
  const uint32_t first = ParseSize(range.substr(0, dash));
  const uint32_t last = dash == std::string::npos ? first : ParseSize(range.substr(dash + 1));
  if (first == 0 || last < first) {
    return absl::InvalidArgumentError(absl::StrCat("-S, --size: `", text, "` is no size from 1 to ",
                                                   kMaxPerfSize,
                                                   ", no range like 64-1M, and not `all`"));
  }
  std::vector<uint32_t> sizes;
  for (uint64_t size = first; size < last; size *= 2) sizes.push_back(static_cast<uint32_t>(size));
  sizes.push_back(last);
  return sizes;
}

absl::StatusOr<PerfPlan> MakePlan(const PerfOptions& options) {
  PerfPlan plan;
  plan.op = OpOf(options.op);
  plan.mode = ModeOf(options.mode);
  plan.swap = options.atomic == "compare-swap";
  plan.events = options.events;
  plan.queue_pairs = static_cast<uint32_t>(options.qps);
  absl::StatusOr<std::vector<uint32_t>> sizes =
      ParseSizes(options.size.empty() ? DefaultSize(plan.op, plan.mode) : options.size);
  if (!sizes.ok()) return sizes.status();
  plan.sizes = *std::move(sizes);
  const bool rate = plan.mode == PerfMode::kRate;
  if (plan.mode != PerfMode::kLatency) {
    plan.window = static_cast<uint32_t>(options.window > 0 ? options.window : rate ? 512 : 16);
    // One doorbell for several operations, and always some in flight while they are made.
    plan.post_list = options.post_list > 0 ? static_cast<uint32_t>(options.post_list)
                                           : std::clamp<uint32_t>(plan.window / 4, 1, 32);
  }
  plan.iterations = static_cast<uint64_t>(options.iterations);
  plan.seconds = static_cast<double>(options.seconds);
  if (plan.iterations == 0 && plan.seconds == 0) {
    if (plan.sizes.size() > 1 || rate) {
      plan.seconds = kShortly;
    } else if (plan.mode == PerfMode::kLatency) {
      plan.iterations = kLatencyIterations;
    } else {
      plan.iterations = std::clamp<uint64_t>(kBandwidthBytes / plan.sizes[0], 100, 1'000'000);
    }
  }
  if (absl::Status status = CheckTogether(options, plan); !status.ok()) return status;
  return plan;
}

}  // namespace verbena::tool
