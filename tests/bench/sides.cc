// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/sides.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>

namespace verbena::bench {
namespace {

constexpr int kProbeRounds = 64;    // the median of so many …
constexpr int kProbeTrips = 64;     // … runs of so many round trips
constexpr double kWarmUp = 0.2;     // of the measured time
constexpr unsigned kPatience = 30;  // seconds, before a run that hangs ends itself

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (arg == "--seconds") {
      options.seconds = std::atof(value);
      ++i;
    } else if (arg == "--cores") {
      if (std::sscanf(value, "%d,%d", &options.cores[0], &options.cores[1]) != 2) {
        Die("--cores takes two numbers, as in 0,1");
      }
      ++i;
    } else if (arg == "--address") {
      options.address = value;
      ++i;
    } else if (arg == "--netns") {
      options.server_netns = value;
      ++i;
    } else if (arg == "--wire") {
      options.wire = value;
      ++i;
    } else {
      options.row = arg;
    }
  }
  if (!(options.seconds > 0 && options.seconds <= 10)) Die("--seconds: more than 0, at most 10");
  return options;
}

// The first two cores that this process may use, or twice the only one.
void ChooseCores(Options* options) {
  if (options->cores[0] >= 0) return;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof(allowed), &allowed);
  int found = 0;
  for (int core = 0; core < CPU_SETSIZE && found < 2; ++core) {
    if (CPU_ISSET(core, &allowed)) options->cores[found++] = core;
  }
  if (found == 1) options->cores[1] = options->cores[0];
}

void Pin(int core) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  if (sched_setaffinity(0, sizeof(one), &one) != 0) {
    Die("core " + std::to_string(core) + " cannot be used: " + std::strerror(errno));
  }
}

void Enter(const std::string& netns) {
  if (netns.empty()) return;
  const int fd = open(netns.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) Die(netns + ": " + std::strerror(errno));
  close(fd);
}

// How long a cache line takes from core to core, in ns; both sides call it. Yields where both share
// a core, so that a run on one core ends too.
double Probe(Shared& shared, uint32_t side) {
  std::array<uint64_t, kProbeRounds> rounds;
  for (uint64_t& round : rounds) {
    const uint64_t begin = NowNs();
    for (int i = 0; i < kProbeTrips; ++i) {
      for (int spins = 1; (shared.ball.load(std::memory_order_acquire) & 1) != side; ++spins) {
        if (spins % 4096 == 0) sched_yield();
        Relax();
      }
      shared.ball.fetch_add(1, std::memory_order_release);
    }
    round = NowNs() - begin;
  }
  std::nth_element(rounds.begin(), rounds.begin() + kProbeRounds / 2, rounds.end());
  return static_cast<double>(rounds[kProbeRounds / 2]) / (2 * kProbeTrips);
}

// ns that a thread ran, and that it was ready to run and did not; 0 where the kernel does not say.
struct Schedule {
  unsigned long long ran = 0, waited = 0;
};
Schedule ScheduleOf(const std::string& thread) {
  Schedule found;
  FILE* file = std::fopen(("/proc/" + thread + "/schedstat").c_str(), "r");
  if (file == nullptr) return found;
  if (std::fscanf(file, "%llu %llu", &found.ran, &found.waited) != 2) found = {};
  std::fclose(file);
  return found;
}
uint64_t RunDelayNs(const std::string& thread = "thread-self") { return ScheduleOf(thread).waited; }

uint64_t children_delay_ns = 0;
uint64_t threads_delay_ns = 0;

uint64_t CpuNs(clockid_t clock) {
  timespec used;
  clock_gettime(clock, &used);
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

// Of the time since it was made, what others took from this thread. What other threads of its own
// process took on the same core is part of what is measured.
class DelayMeter {
 public:
  double Share() const {
    const uint64_t delay = RunDelayNs() + children_delay_ns - delay_;
    const uint64_t own = OwnNs() - own_;
    const uint64_t others = std::max(delay > own ? delay - own : 0, threads_delay_ns);
    return static_cast<double>(others) / static_cast<double>(NowNs() - begin_);
  }

 private:
  static uint64_t OwnNs() {
    const uint64_t process = CpuNs(CLOCK_PROCESS_CPUTIME_ID);
    const uint64_t thread = CpuNs(CLOCK_THREAD_CPUTIME_ID);
    return process > thread ? process - thread : 0;
  }

  uint64_t begin_ = NowNs();
  uint64_t delay_ = RunDelayNs();
  uint64_t own_ = OwnNs();
};

void PrintCounts(const char* side, const Counts& counts) {
  std::printf(", \"%s\": {", side);
  const char* comma = "";
  for (const Count& c : counts) {
    if (c.name[0] == '\0') continue;
    std::printf("%s\"%s\": %llu", comma, c.name, static_cast<unsigned long long>(c.value));
    comma = ", ";
  }
  std::printf("}");
}

void Serve(const Row& row, const Options& options, Shared& shared) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  alarm(kPatience);
  Enter(options.server_netns);
  Pin(options.cores[1]);
  Probe(shared, 1);
  const DelayMeter meter;
  row.serve(options, shared);
  shared.delayed = meter.Share();
  Probe(shared, 1);
}

volatile pid_t server_pid = 0;

// A server that is gone leaves the client in its row, or in Probe, until its patience ends. By a
// signal: a thread that waits would make libc's calls dearer.
void OnChild(int) {
  siginfo_t info = {};
  const int failed =
      waitid(P_PID, static_cast<id_t>(server_pid), &info, WEXITED | WNOHANG | WNOWAIT);
  if (failed != 0 || info.si_pid == 0 || (info.si_code == CLD_EXITED && info.si_status == 0)) {
    return;
  }
  std::array<char, 64> text;
  const int length =
      std::snprintf(text.data(), text.size(), "bench: the server ended, %s %d\n",
                    info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
  (void)!write(STDERR_FILENO, text.data(), static_cast<size_t>(length));
  _exit(1);
}

void WatchServer(pid_t server) {
  server_pid = server;
  struct sigaction action = {};
  action.sa_handler = OnChild;
  action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
  sigaction(SIGCHLD, &action, nullptr);
  OnChild(SIGCHLD);  // it may have ended before
}

int Measure(const Row& row, const Options& options, Shared& shared, pid_t server) {
  alarm(kPatience);
  WatchServer(server);
  Pin(options.cores[0]);
  const double before = Probe(shared, 0);
  const DelayMeter meter;
  const Result result = row.measure(options, shared);
  const double delayed = meter.Share();
  const double after = Probe(shared, 0);
  int status = 0;
  waitpid(server, &status, 0);
  if (status != 0) return 1;
  std::printf("{\"row\": \"%s\", \"unit\": \"%s\", \"value\": %.6g, \"p99\": %.6g, ", row.name,
              result.unit, result.value, result.p99);
  std::printf("\"probe_ns\": [%.1f, %.1f], \"delayed\": %.4f", before, after,
              std::max(delayed, shared.delayed));
  PrintCounts("client", result.client);
  PrintCounts("server", shared.server);
  std::printf("}\n");
  return 0;
}

}  // namespace

int Main(int argc, char** argv, const std::vector<Row>& rows) {
  Options options = Parse(argc, argv);
  ChooseCores(&options);
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return options.row == r.name; });
  if (row == rows.end()) {
    std::string names;
    for (const Row& r : rows) names += std::string(" ") + r.name;
    Die("name one row of:" + names);
  }
  if (const std::string lack = row->lacks ? row->lacks() : ""; !lack.empty()) {
    std::printf("{\"skipped\": \"%s\"}\n", lack.c_str());
    return kSkipped;
  }
  void* page =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) Die("no shared memory");
  Shared* shared = new (page) Shared;
  if (sem_init(&shared->finished, 1, 0) != 0) Die("no semaphore");
  const pid_t server = fork();
  if (server < 0) Die("fork failed");
  if (server == 0) {
    Serve(*row, options, *shared);
    std::fflush(stdout);
    _exit(0);
  }
  return Measure(*row, options, *shared, server);
}

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

double CpuSeconds() {
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

Clock::Clock(double seconds)
    : warm_(NowNs() + static_cast<uint64_t>(seconds * kWarmUp * 1e9)),
      end_(warm_ + static_cast<uint64_t>(seconds * 1e9)) {}

double Samples::Percentile(double p) {
  if (all_.empty()) Die("nothing was measured");
  const auto at = static_cast<size_t>(static_cast<double>(all_.size() - 1) * p / 100);
  std::nth_element(all_.begin(), all_.begin() + static_cast<ptrdiff_t>(at), all_.end());
  return all_[at];
}

Result Latency(Samples& round_trips) {
  Result result;
  result.unit = "us";
  result.value = round_trips.Percentile(50) / 2000;
  result.p99 = round_trips.Percentile(99) / 2000;
  return result;
}

Result RoundTrip(Samples& round_trips) {
  Result result = Latency(round_trips);
  result.value *= 2;
  result.p99 *= 2;
  return result;
}

Result CpuPerGb(double own, double bytes, const Shared& shared) {
  Result result;
  result.unit = "s/GB";
  result.value = (own + shared.cpu_seconds) / (bytes / 1e9);
  return result;
}

void Tell(Shared& shared, int side, const void* bytes, size_t size) {
  Contact& contact = shared.contacts[static_cast<size_t>(side)];
  if (size > contact.bytes.size()) Die("a contact is too long");
  std::memcpy(contact.bytes.data(), bytes, size);
  contact.size = size;
  contact.there.store(true, std::memory_order_release);
}

const Contact& Hear(const Shared& shared, int side) {
  const Contact& contact = shared.contacts[static_cast<size_t>(side)];
  while (!contact.there.load(std::memory_order_acquire)) sched_yield();
  return contact;
}

void CountDelayOf(int pid) { children_delay_ns += RunDelayNs(std::to_string(pid)); }

uint64_t DelayNs() { return RunDelayNs(); }
void CountDelay(uint64_t ns) { children_delay_ns += ns; }

// What a thread waited while others of this process ran is no delay; how much of it that was is
// not known, at most all.
void CountDelayOfThreads() {
  const uint64_t process = CpuNs(CLOCK_PROCESS_CPUTIME_ID);
  uint64_t worst = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const Schedule of = ScheduleOf("self/task/" + task.path().filename().string());
    const uint64_t others = process > of.ran ? process - of.ran : 0;
    if (of.waited > others) worst = std::max<uint64_t>(worst, of.waited - others);
  }
  threads_delay_ns = worst;
}

void Die(const std::string& why) {
  std::fprintf(stderr, "bench: %s\n", why.c_str());
  std::_Exit(1);
}

// The server has nothing else to do than to listen, so this is a matter of microseconds.
int WaitForPort(const Shared& shared) {
  int port = 0;
  while ((port = shared.port.load(std::memory_order_acquire)) == 0) sched_yield();
  return port;
}

}  // namespace verbena::bench
