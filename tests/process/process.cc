// SPDX-License-Identifier: Apache-2.0
#include "tests/process/process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "gtest/gtest.h"

namespace verbena::testing {

Process::Process(std::vector<std::string> argv, const ProcessOptions& options) : name_(argv[0]) {
  for (size_t i = 1; i < argv.size(); ++i) name_ += " " + argv[i];
  std::array<int, 2> out;
  std::array<int, 2> err;
  if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(err.data(), O_CLOEXEC) != 0) {
    ADD_FAILURE() << name_ << ": no pipe, errno " << errno;
    return;
  }
  pid_ = fork();
  if (pid_ == 0) {
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    Exec(argv, options);
  }
  close(out[1]);
  close(err[1]);
  out_.fd = out[0];
  err_.fd = err[0];
}

// In the child. The test has threads of its own, so memory may be locked; but execve's arrays are
// made by now (argv) or need none of it here under glibc, whose fork leaves malloc usable.
void Process::Exec(const std::vector<std::string>& argv, const ProcessOptions& options) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that dies takes its children along
  if (const int null = open("/dev/null", O_RDONLY); null >= 0) dup2(null, STDIN_FILENO);
  if (!options.may_bind_low_ports) prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE);
  for (const std::string& entry : options.environment) putenv(const_cast<char*>(entry.c_str()));
  if (options.descriptors > 0) {
    // The sanitizers' and the test's own are not the child's to count.
    for (int fd = 3; fd < 256; ++fd) close(fd);
    const rlimit limit{static_cast<rlim_t>(options.descriptors),
                       static_cast<rlim_t>(options.descriptors)};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execv(words[0], words.data());
  _exit(127);
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (Stream* stream : {&out_, &err_}) {
    if (stream->fd >= 0) close(stream->fd);
  }
}

bool Process::ReadSome(std::chrono::steady_clock::time_point deadline) {
  while (out_.fd >= 0 || err_.fd >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    std::array<pollfd, 2> fds = {pollfd{out_.fd, POLLIN, 0}, pollfd{err_.fd, POLLIN, 0}};
    const int ready = left.count() > 0 ? poll(fds.data(), 2, static_cast<int>(left.count())) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    for (Stream* stream : {&out_, &err_}) {
      if (fds[stream == &out_ ? 0 : 1].revents == 0) continue;
      std::array<char, 4096> bytes;
      const ssize_t count = read(stream->fd, bytes.data(), bytes.size());
      if (count > 0) {
        stream->text.append(bytes.data(), static_cast<size_t>(count));
      } else {
        close(std::exchange(stream->fd, -1));
      }
    }
    return true;
  }
  return false;
}

std::string Process::LineWith(Stream& stream, const std::string& part) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  do {
    for (size_t end; (end = stream.text.find('\n', stream.seen)) != std::string::npos;) {
      std::string line = stream.text.substr(stream.seen, end - stream.seen);
      stream.seen = end + 1;
      if (line.find(part) != std::string::npos) return line;
    }
  } while (ReadSome(deadline));
  ADD_FAILURE() << "no line with `" << part << "` from " << Describe();
  return "";
}

void Process::Kill(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

int Process::Wait(std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (ReadSome(deadline)) {
  }
  if (out_.fd >= 0 || err_.fd >= 0) {
    ADD_FAILURE() << "still runs after " << patience.count() << " ms: " << Describe();
    return -1;
  }
  int status = 0;
  waitpid(std::exchange(pid_, -1), &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string Process::Describe() const {
  return name_ + "\nstdout:\n" + out_.text + "\nstderr:\n" + err_.text;
}

Finished RunToEnd(std::vector<std::string> argv, const ProcessOptions& options) {
  Process process(std::move(argv), options);
  const int status = process.Wait();
  return {status, process.out(), process.err()};
}

}  // namespace verbena::testing
