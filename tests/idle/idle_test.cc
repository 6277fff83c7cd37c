// SPDX-License-Identifier: Apache-2.0
// A process whose connections are idle costs nothing: no thread of it enters the kernel. Watched
// from outside, with strace, in a process that was forked before anything else and has both ends of
// its connections.
//
// VERBENA_IDLE_SECONDS: how long it is watched; 2 if it does not say.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "transport/context.h"

namespace verbena {
namespace {

constexpr int kConnections = 100;
constexpr size_t kBytes = 64;  // of a message
constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr unsigned kLongestLife = 120;  // seconds of the watched process, whatever happens

// Of the watched process: it has no gtest to tell.
void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "the watched process: " << status.message() << std::endl;
  std::_Exit(1);
}
template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// Connections that have just been busy: polled, so that they were served by the polling thread.
struct House {
  Context context = Check(Context::Open({.device = "tcp"}));
  Device& device = *context.devices()[0];
  std::vector<std::byte> memory = std::vector<std::byte>(kBytes);
  ProtectionDomain pd = Check(device.AllocateProtectionDomain());
  MemoryRegion region = Check(pd.Register(memory, Access::kLocalWrite));
  CompletionQueue cq = Check(device.CreateCompletionQueue({.entries = 4 * kConnections}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  Path path = Check(context.Resolve("127.0.0.1:" + std::to_string(listener.port())));
  std::vector<QueuePair> clients, servers;

  House() {
    for (int i = 0; i < kConnections; ++i) Connect();
    for (int established = 0; established < 2 * kConnections;) {
      const Event event = Check(context.events().Next(kPatience));
      if (event.type == EventType::kEstablished) ++established;
    }
    for (int round = 0; round < 20; ++round) Talk();
  }

  QueuePair NewQueuePair() {
    return Check(pd.CreateQueuePair(
        {.send_cq = &cq, .receive_cq = &cq, .limits = {.max_send_wr = 4, .max_receive_wr = 4}}));
  }

  void Connect() {
    clients.push_back(NewQueuePair());
    servers.push_back(NewQueuePair());
    Check(path.StartConnect(clients.back()));
    Check(Check(listener.Next(kPatience)).Accept(servers.back()));
  }

  void Talk() {
    for (QueuePair& qp : servers) {
      Check(qp.PostReceive({.local = region.slice(0, kBytes)}).ToStatus());
    }
    for (QueuePair& qp : clients) {
      Check(qp.PostSend({.local = region.slice(0, kBytes)}).ToStatus());
    }
    std::array<WorkCompletion, 64> done;
    for (size_t completed = 0; completed < 2 * kConnections;) {
      const size_t n = cq.Poll(done);
      for (size_t i = 0; i < n; ++i) Check(done[i].ToStatus());
      completed += n;
    }
  }
};

// What the test must notice: a thread that looks around 100 times a second.
void Fidget() {
  for (;;) poll(nullptr, 0, 10);
}

// The watched process. Says that it is ready, then waits, in the kernel, to be killed.
[[noreturn]] void Live(int ready, bool restless) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);  // where Yama asks for it
  alarm(kLongestLife);
  const House house;
  std::thread fidget;
  if (restless) fidget = std::thread(Fidget);
  if (write(ready, "r", 1) != 1) std::_Exit(1);
  for (;;) pause();
}

class Watched {
 public:
  explicit Watched(bool restless) {
    std::array<int, 2> ready;
    if (pipe(ready.data()) != 0) return;
    pid_ = fork();
    if (pid_ == 0) Live(ready[1], restless);
    close(ready[1]);
    char said = 0;
    ready_ = read(ready[0], &said, 1) == 1;
    close(ready[0]);
  }
  ~Watched() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  bool ready() const { return ready_; }  // false: it died, and said why
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

std::string Read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

struct Strace {
  int status = 0;
  std::string table;    // what it counted
  std::string remarks;  // its stderr
  bool attached() const { return remarks.find(" attached") != std::string::npos; }
};

// Counts the system calls of all threads of `pid`.
Strace Count(pid_t pid, const std::string& seconds) {
  const std::string folder = testing::TempDir();
  const std::string table = folder + "/idle-table-" + std::to_string(pid);
  const std::string remarks = folder + "/idle-remarks-" + std::to_string(pid);
  const std::string process = std::to_string(pid);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = open(remarks.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDERR_FILENO);
    execlp("timeout", "timeout", "--signal=INT", seconds.c_str(), "strace", "-f", "-c", "-o",
           table.c_str(), "-p", process.c_str(), nullptr);
    std::_Exit(127);
  }
  Strace result;
  waitpid(child, &result.status, 0);
  result.table = Read(table);
  result.remarks = Read(remarks);
  unlink(table.c_str());
  unlink(remarks.c_str());
  return result;
}

// Calls in all: each line of the table has the columns % time, seconds, usecs/call, calls.
uint64_t Calls(const std::string& table) {
  uint64_t calls = 0;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    double percent = 0, seconds = 0, each = 0;
    uint64_t count = 0;
    if (line.ends_with(" total")) continue;
    if (fields >> percent >> seconds >> each >> count) calls += count;
  }
  return calls;
}

std::string Seconds() {
  const char* seconds = std::getenv("VERBENA_IDLE_SECONDS");
  return seconds == nullptr ? "2" : seconds;
}

// 100 connections that have worked and have nothing to do now, and a second for them to cool down.
// Expect: not a single system call, by any thread.
TEST(Idle, MakesNoSystemCall) {
  const Watched process(false);
  ASSERT_TRUE(process.ready());
  const Strace cooling = Count(process.pid(), "1");
  if (!cooling.attached()) GTEST_SKIP() << "strace cannot watch: " << cooling.remarks;
  const Strace idle = Count(process.pid(), Seconds());
  ASSERT_TRUE(idle.attached()) << idle.remarks;
  EXPECT_EQ(Calls(idle.table), 0u) << idle.table;
}

// The same with one thread that wakes 100 times a second.
// Expect: it is seen, or else the test above proves nothing.
TEST(Idle, ARestlessThreadIsNoticed) {
  const Watched process(true);
  ASSERT_TRUE(process.ready());
  const Strace restless = Count(process.pid(), "1");
  if (!restless.attached()) GTEST_SKIP() << "strace cannot watch: " << restless.remarks;
  EXPECT_GT(Calls(restless.table), 20u) << restless.table;
}

}  // namespace
}  // namespace verbena
