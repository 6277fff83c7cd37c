// SPDX-License-Identifier: Apache-2.0
// The work of allreduce_bench by Open MPI over its tcp transport. The client starts `mpirun` on
// this very program, between the probes that all programs of tests/bench have; rank 0 measures,
// pinned to the client's core, rank 1 to the server's.
#include "tests/bench/sides.h"

#ifdef HAVE_MPI
// Its old C++ interface is in a library of its own, and asan keeps the references to that.
#define OMPI_SKIP_MPICXX 1

#include <fcntl.h>
#include <mpi.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/bench/rpc_meter.h"
#include "tests/bench/system_calls.h"

namespace verbena::bench {
namespace {

struct Work {
  const char* name;
  size_t bytes;
  int algorithm;  // of coll_tuned_allreduce_algorithm; 0: as Open MPI decides
};
// 2: reduce and broadcast, 3: recursive doubling, 4: ring, 5: segmented ring, 6: Rabenseifner's.
constexpr Work kWorks[] = {{"reduce_8", 8, 0},
                           {"reduce_64k", 64u << 10, 0},
                           {"reduce_1m", 1u << 20, 0},
                           {"reduce_1m_3", 1u << 20, 3},
                           {"reduce_64m", 64u << 20, 0},
                           {"reduce_64m_2", 64u << 20, 2},
                           {"reduce_64m_5", 64u << 20, 5}};

void Rank(const Work& work, double seconds, const std::array<int, 2>& cores) {
  MPI_Init(nullptr, nullptr);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cores[static_cast<size_t>(rank)], &one);
  sched_setaffinity(0, sizeof(one), &one);

  std::vector<float> tensor(work.bytes / sizeof(float), 1e-3f);
  MPI_Barrier(MPI_COMM_WORLD);
  Samples samples;
  uint64_t calls = 0;
  const Cost cost(SystemCalls);
  const uint64_t delay = DelayNs(), start = NowNs();
  const Clock clock(seconds);
  uint64_t begin = NowNs();
  do {
    tensor[0] = rank == 0 && clock.over(begin) && !samples.empty() ? 1.0f : 0.0f;
    MPI_Allreduce(MPI_IN_PLACE, tensor.data(), static_cast<int>(tensor.size()), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
    ++calls;
    const uint64_t end = NowNs();
    if (clock.warm(begin)) samples.Add(end - begin);
    begin = end;
  } while (tensor[0] == 0);

  const Counts spent = cost.Report(calls);
  // CPU, system calls, and the share of the time that others took, in millionths.
  const std::array<uint64_t, 3> own = {spent[1].value, spent[2].value,
                                       (DelayNs() - delay) * 1'000'000 / (NowNs() - start)};
  std::array<uint64_t, 3> other{};
  if (rank == 1) {
    MPI_Send(own.data(), 3, MPI_UINT64_T, 0, 0, MPI_COMM_WORLD);
  } else {
    MPI_Recv(other.data(), 3, MPI_UINT64_T, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    const Result result = RoundTrip(samples);
    std::printf("figures %.6g %.6g %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", result.value,
                result.p99, calls, own[0] + other[0], own[1] + other[1],
                std::max(own[2], other[2]));
    std::fflush(stdout);
  }
  MPI_Finalize();
}

std::string Output(const std::vector<std::string>& arguments) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) Die("pipe failed");
  const pid_t child = fork();
  if (child < 0) Die("fork failed");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(ends[1], STDOUT_FILENO);
    std::vector<char*> argv;
    for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    std::_Exit(127);
  }
  close(ends[1]);
  std::string text;
  std::array<char, 512> some;
  for (ssize_t n; (n = read(ends[0], some.data(), some.size())) > 0;) {
    text.append(some.data(), static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) Die("mpirun failed: " + text);
  return text;
}

Result Measure(const Work& work, const Options& options) {
  std::array<char, 4096> self{};  // mpirun is another program, for which /proc/self/exe is itself
  if (readlink("/proc/self/exe", self.data(), self.size() - 1) <= 0) Die("/proc is missing");
  std::vector<std::string> command = {"mpirun",
                                      "--allow-run-as-root",
                                      "--oversubscribe",
                                      "--bind-to",
                                      "none",
                                      "-np",
                                      "2",
                                      "--mca",
                                      "btl",
                                      "tcp,self",
                                      "--mca",
                                      "pml",
                                      "ob1",
                                      "--mca",
                                      "btl_tcp_if_include",
                                      "lo",
                                      "--mca",
                                      "oob_tcp_if_include",
                                      "lo"};
  if (work.algorithm != 0) {
    command.insert(command.end(),
                   {"--mca", "coll_tuned_use_dynamic_rules", "1", "--mca",
                    "coll_tuned_allreduce_algorithm", std::to_string(work.algorithm)});
  }
  command.insert(command.end(),
                 {self.data(), "rank", work.name, std::to_string(options.seconds),
                  std::to_string(options.cores[0]) + "," + std::to_string(options.cores[1])});
  const uint64_t begin = NowNs();
  const std::string text = Output(command);

  uint64_t calls = 0, cpu = 0, system_calls = 0, delayed = 0;
  Result result;
  result.unit = "us";
  const size_t at = text.find("figures ");
  if (at == std::string::npos ||
      std::sscanf(text.c_str() + at, "figures %lf %lf %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
                  &result.value, &result.p99, &calls, &cpu, &system_calls, &delayed) != 6) {
    Die("mpirun said: " + text);
  }
  CountDelay((NowNs() - begin) / 1'000'000 * delayed);
  result.client = {{{"calls", calls}, {"cpu_ns", cpu}, {"system_calls", system_calls}}};
  return result;
}

std::string Lack() {
  const std::string path = std::getenv("PATH") == nullptr ? "" : std::getenv("PATH");
  for (size_t from = 0; from <= path.size();) {
    const size_t to = std::min(path.find(':', from), path.size());
    if (access((path.substr(from, to - from) + "/mpirun").c_str(), X_OK) == 0) return "";
    from = to + 1;
  }
  return "no mpirun; tools/setup --full installs it";
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  std::vector<Row> rows;
  for (const Work& work : kWorks) {
    if (argc == 5 && std::strcmp(argv[1], "rank") == 0 && std::strcmp(argv[2], work.name) == 0) {
      std::array<int, 2> cores{};
      std::sscanf(argv[4], "%d,%d", &cores[0], &cores[1]);
      Rank(work, std::atof(argv[3]), cores);
      return 0;
    }
    rows.push_back({work.name,
                    [](const Options&, Shared& shared) {
                      while (sem_wait(&shared.finished) != 0) {
                      }
                    },
                    [&work](const Options& options, Shared& shared) {
                      Result result = Measure(work, options);
                      sem_post(&shared.finished);
                      return result;
                    },
                    Lack});
  }
  return Main(argc, argv, rows);
}

#else

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  const auto lack = [] {
    return std::string("built without Open MPI; tools/setup --full, then bazel sync --configure");
  };
  std::vector<Row> rows;
  for (const char* name : {"reduce_8", "reduce_64k", "reduce_1m", "reduce_1m_3", "reduce_64m",
                           "reduce_64m_2", "reduce_64m_5"}) {
    rows.push_back({name, nullptr, nullptr, lack});
  }
  return Main(argc, argv, rows);
}
#endif
