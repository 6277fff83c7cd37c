// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/trial.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "tests/sim/player.h"

namespace verbena::sim {

namespace {

constexpr size_t kPoolBytes = 256 << 20;  // touched as far as a scenario needs it
constexpr unsigned kPatienceS = 10;       // for one scenario, which takes milliseconds
constexpr size_t kTextBytes = 1024;

// What a child leaves for its parent.
struct Slate {
  uint64_t seed;
  uint64_t scenarios;
  uint64_t requests;
  double cpu_seconds;
  uint32_t at;
  bool failed;
  char text[kTextBytes];
};

void PlayOne(Slate* slate, Pool* pool, const std::vector<uint32_t>& keep) {
  alarm(kPatienceS);  // ends the process
  const Scenario scenario = MakeScenario(slate->seed);
  pool->Clear();
  Player player(scenario.config, pool, false);
  const Outcome out = player.Play(scenario.steps, keep, &slate->at);
  ++slate->scenarios;
  slate->requests += out.requests;
  slate->failed = out.failed;
  slate->text[out.text.copy(slate->text, kTextBytes - 1)] = 0;
}

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Report InAChild(uint64_t seed, const std::function<void(Slate*)>& work) {
  static Slate* const slate = static_cast<Slate*>(
      mmap(nullptr, sizeof(Slate), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::memset(slate, 0, sizeof(*slate));
  slate->seed = seed;
  const pid_t child = fork();
  if (child == 0) {
    work(slate);
    slate->cpu_seconds = CpuSeconds();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  Report r{slate->failed,    slate->text,     slate->seed,       slate->at,
           slate->scenarios, slate->requests, slate->cpu_seconds};
  if (status == 0) return r;
  r.failed = true;
  if (!WIFSIGNALED(status)) {
    r.text = absl::StrCat("it ends the process, status ", WEXITSTATUS(status));
  } else if (WTERMSIG(status) == SIGALRM) {
    r.text = absl::StrCat("it hangs, for ", kPatienceS, " s");
  } else {
    r.text = absl::StrCat("it crashes, signal ", WTERMSIG(status));
  }
  return r;
}

}  // namespace

Report RunMany(uint64_t seed, double seconds) {
  return InAChild(seed, [&](Slate* slate) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    Pool pool(kPoolBytes);
    for (;; ++slate->seed) {
      PlayOne(slate, &pool, {});
      if (slate->failed || Clock::now() >= end) return;
    }
  });
}

Report RunOne(uint64_t seed, const std::vector<uint32_t>& keep) {
  return InAChild(seed, [&](Slate* slate) {
    Pool pool(kPoolBytes);
    PlayOne(slate, &pool, keep);
  });
}

std::string Tell(uint64_t seed, const std::vector<uint32_t>& keep) {
  const Scenario scenario = MakeScenario(seed);
  Pool pool(kPoolBytes);
  Player player(scenario.config, &pool, true);
  uint32_t at = 0;
  const Outcome out = player.Play(scenario.steps, keep, &at);
  return absl::StrCat(Describe(scenario.config), "\n", out.story,
                      out.failed ? "FAILED: " : "passed", out.text, "\n");
}

std::vector<uint32_t> Shrink(std::vector<uint32_t> steps,
                             const std::function<bool(const std::vector<uint32_t>&)>& fails) {
  bool again = true;
  for (size_t part = std::max<size_t>(steps.size() / 2, 1); again || part > 1;) {
    again = false;
    for (size_t i = 0; i < steps.size();) {
      std::vector<uint32_t> fewer(steps.begin(), steps.begin() + static_cast<ptrdiff_t>(i));
      const size_t rest = std::min(i + part, steps.size());
      fewer.insert(fewer.end(), steps.begin() + static_cast<ptrdiff_t>(rest), steps.end());
      if (!fewer.empty() && fails(fewer)) {
        steps = std::move(fewer);
        again = true;
      } else {
        i += part;
      }
    }
    if (part > 1) {
      part /= 2;
      again = true;
    }
  }
  return steps;
}

}  // namespace verbena::sim
