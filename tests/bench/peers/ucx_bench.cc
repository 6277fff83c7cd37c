// SPDX-License-Identifier: Apache-2.0
// The work of verbena_bench on UCX's tcp transport: its own ucx_perftest, between the probes that
// all programs of tests/bench have. Runs a number of iterations that takes about as long as the
// others measure: ucx_perftest knows no time limit.
//
// UCX_NET_DEVICES: the interface to use, "lo" if it is not set.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/bench/sides.h"

namespace verbena::bench {
namespace {

constexpr int kPort = 13337;  // ucx_perftest's own
constexpr const char* kProgram = "ucx_perftest";

struct Test {
  const char* name;
  const char* test;  // of ucx_perftest
  size_t bytes;
  double per_second;  // iterations, roughly, where the machine is quiet
  const char* unit;
  size_t window = 0;  // 0: ucx_perftest's own
  bool sleep = false;
};

// UCX looks for interfaces in /sys/class/net, which shows those of the network namespace that it
// was mounted in. If this cannot be, UCX says so.
void ShowInterfaces() {
  if (unshare(CLONE_NEWNS) != 0) return;
  mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  mount("sysfs", "/sys", "sysfs", 0, nullptr);
}

// The child's pid; its stdout comes out of `out` if that is wanted.
pid_t Run(const std::vector<std::string>& arguments, int* out) {
  std::array<int, 2> ends = {-1, -1};
  if (out != nullptr && pipe2(ends.data(), O_CLOEXEC) != 0) Die("pipe failed");
  const pid_t child = fork();
  if (child < 0) Die("fork failed");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("UCX_TLS", "tcp", 1);
    setenv("UCX_NET_DEVICES", "lo", 0);
    if (std::strcmp(std::getenv("UCX_NET_DEVICES"), "lo") != 0) ShowInterfaces();
    setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 1);
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(out != nullptr ? ends[1] : nowhere, STDOUT_FILENO);
    std::vector<char*> argv;
    for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    std::_Exit(127);
  }
  if (out != nullptr) {
    close(ends[1]);
    *out = ends[0];
  }
  return child;
}

void Finish(pid_t child) {
  siginfo_t ended;
  waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT);
  CountDelayOf(child);
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) Die("ucx_perftest failed");
}

// Connecting to see whether it does would be taken for the client.
bool Listens(int port) {
  for (const char* table : {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}) {
    std::ifstream lines(table);
    for (std::string line; std::getline(lines, line);) {
      unsigned at = 0, state = 0;
      if (std::sscanf(line.c_str(), " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &at, &state) ==
              2 &&
          at == static_cast<unsigned>(port) && state == 0x0a) {
        return true;
      }
    }
  }
  return false;
}

void Serve(const Test& test, Shared& shared) {
  std::vector<std::string> arguments = {kProgram, "-p", std::to_string(kPort)};
  if (test.sleep) arguments.insert(arguments.end(), {"-E", "sleep"});
  const pid_t child = Run(arguments, nullptr);
  while (!Listens(kPort)) {
    if (waitpid(child, nullptr, WNOHANG) == child) Die("ucx_perftest does not listen");
    sched_yield();
  }
  shared.port.store(kPort, std::memory_order_release);
  Finish(child);
}

// The line of figures of -f -v: iterations, typical, average, overall latency (µs), average and
// overall bandwidth (MiB/s), average and overall rate.
Result Figure(const Test& test, int from) {
  std::string text;
  std::array<char, 512> some;
  for (ssize_t n; (n = read(from, some.data(), some.size())) > 0;) {
    text.append(some.data(), static_cast<size_t>(n));
  }
  close(from);
  std::array<double, 8> column{};
  std::istringstream lines(text);
  size_t read = 0;
  for (std::string line; read < column.size() && std::getline(lines, line);) {
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream fields(line);
    for (read = 0; read < column.size() && fields >> column[read];) ++read;
  }
  if (read < column.size()) Die("ucx_perftest's figures are not where they were: " + text);
  Result result;
  result.unit = test.unit;
  if (std::strcmp(test.unit, "us") == 0) result.value = column[1];
  if (std::strcmp(test.unit, "GB/s") == 0) result.value = column[5] * 1024 * 1024 / 1e9;
  if (std::strcmp(test.unit, "M/s") == 0) result.value = column[7] / 1e6;
  return result;
}

Result Measure(const Test& test, const Options& options, const Shared& shared) {
  const auto iterations = static_cast<uint64_t>(std::max(20.0, test.per_second * options.seconds));
  std::vector<std::string> arguments = {kProgram, options.address,
                                        "-p",     std::to_string(WaitForPort(shared)),
                                        "-f",     "-v",
                                        "-t",     test.test,
                                        "-s",     std::to_string(test.bytes),
                                        "-n",     std::to_string(iterations),
                                        "-w",     std::to_string(iterations / 5)};
  if (test.window != 0) arguments.insert(arguments.end(), {"-O", std::to_string(test.window)});
  if (test.sleep) arguments.insert(arguments.end(), {"-E", "sleep"});
  int out = -1;
  const pid_t child = Run(arguments, &out);
  const Result result = Figure(test, out);
  Finish(child);
  return result;
}

std::string Lack() {
  std::istringstream folders(std::getenv("PATH") != nullptr ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/" + kProgram).c_str(), X_OK) == 0) return "";
  }
  return "no ucx_perftest; tools/setup --test installs ucx-utils";
}

Row Of(const Test& test) {
  return {test.name, [test](const Options&, Shared& shared) { Serve(test, shared); },
          [test](const Options& options, Shared& shared) { return Measure(test, options, shared); },
          Lack};
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  return Main(argc, argv,
              {Of({"send_ping", "tag_lat", kSmall, 35e3, "us"}),
               Of({"write_ping", "ucp_put_lat", kSmall, 15e3, "us"}),
               Of({"event_ping", "tag_lat", kSmall, 15e3, "us", 0, true}),
               Of({"writes", "ucp_put_bw", kLarge, 4e3, "GB/s"}),
               Of({"reads", "ucp_get", kLarge, 1500, "GB/s", 16}),
               Of({"writes_4k", "ucp_put_bw", kPage, 120e3, "GB/s"}),
               Of({"reads_4k", "ucp_get", kPage, 20e3, "GB/s", 128}),
               Of({"writes_64", "ucp_put_bw", kMessage, 170e3, "M/s"}),
               Of({"messages", "tag_bw", kMessage, 350e3, "M/s"}),
               Of({"atomics", "ucp_fadd", kSmall, 20e3, "M/s"})});
}
