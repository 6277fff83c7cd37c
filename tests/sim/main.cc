// SPDX-License-Identifier: Apache-2.0
// Runs scenarios: see kUsage, and README.md.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tests/sim/trial.h"

namespace {

using namespace verbena::sim;  // NOLINT: a program

constexpr char kUsage[] =
    "sim [--seed=N] [--minutes=M | --seconds=S]   scenarios from seed N on; without N, fresh ones\n"
    "sim --seed=N --keep=1,2,3                    one scenario, of these steps; tells each\n"
    "Status 1: a scenario failed. Its seed, its shortest list of steps, and how to replay it, are\n"
    "told.\n";

struct Options {
  uint64_t seed = 0;
  double seconds = 60;
  bool replay = false;
  std::vector<uint32_t> keep;
};

bool Parse(int argc, char** argv, Options* o) {
  // Fresh ones each time, if nobody wants the same again.
  o->seed =
      static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) >> 10;
  for (int i = 1; i < argc; ++i) {
    absl::string_view arg = argv[i];
    double minutes = 0;
    bool ok = true;
    if (absl::ConsumePrefix(&arg, "--seed=")) {
      ok = absl::SimpleAtoi(arg, &o->seed);
    } else if (absl::ConsumePrefix(&arg, "--seconds=")) {
      ok = absl::SimpleAtod(arg, &o->seconds);
    } else if (absl::ConsumePrefix(&arg, "--minutes=")) {
      ok = absl::SimpleAtod(arg, &minutes);
      o->seconds = 60 * minutes;
    } else if (absl::ConsumePrefix(&arg, "--keep=")) {
      o->replay = true;
      for (absl::string_view step : absl::StrSplit(arg, ',', absl::SkipEmpty())) {
        ok = ok && absl::SimpleAtoi(step, &o->keep.emplace_back());
      }
    } else if (arg == "--help") {
      std::printf("%s", kUsage);
      std::exit(0);
    } else {
      ok = false;
    }
    if (!ok) {
      std::fprintf(stderr, "sim: %s: unknown\n%s", argv[i], kUsage);
      return false;
    }
  }
  return true;
}

// The steps that the failure needs, and their story.
void Explain(const Report& failure) {
  std::vector<uint32_t> steps(failure.at + 1);
  std::iota(steps.begin(), steps.end(), 0);
  if (!RunOne(failure.seed, steps).failed) {
    std::printf("it does not fail again: the engine depends on more than the seed\n");
    return;
  }
  steps = Shrink(
      steps, [&](const std::vector<uint32_t>& keep) { return RunOne(failure.seed, keep).failed; });
  const Report least = RunOne(failure.seed, steps);
  if (least.text == failure.text || !absl::StartsWith(least.text, "it ")) {
    std::printf("%s", Tell(failure.seed, steps).c_str());
  }
  std::printf(
      "%zu steps are left: %s\nreplay: bazel run -c opt //tests/sim -- --seed=%llu --keep=%s\n",
      steps.size(), least.text.c_str(), static_cast<unsigned long long>(failure.seed),
      absl::StrJoin(steps, ",").c_str());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, &options)) return 2;
  if (options.replay) {
    const Report r = RunOne(options.seed, options.keep);
    const bool tells = !r.failed || !absl::StartsWith(r.text, "it ");
    std::printf("%s\n", tells ? Tell(options.seed, options.keep).c_str() : r.text.c_str());
    return r.failed ? 1 : 0;
  }
  const auto begun = std::chrono::steady_clock::now();
  const Report r = RunMany(options.seed, options.seconds);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  std::printf("seeds %llu to %llu, %.0f s: %llu requests checked",
              static_cast<unsigned long long>(options.seed),
              static_cast<unsigned long long>(r.seed), took.count(),
              static_cast<unsigned long long>(r.requests));
  if (r.cpu_seconds > 0) {
    std::printf(", %.0f a CPU second", static_cast<double>(r.requests) / r.cpu_seconds);
  }
  std::printf("\n");
  if (!r.failed) return 0;
  std::printf("FAILED: seed %llu, after %.1f s: %s\n", static_cast<unsigned long long>(r.seed),
              took.count(), r.text.c_str());
  std::fflush(stdout);
  Explain(r);
  return 1;
}
