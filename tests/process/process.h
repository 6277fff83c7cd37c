// SPDX-License-Identifier: Apache-2.0
// A child process of a test: its lines as they come, its end, its death. Every wait has a deadline
// and ends with the event, not with the clock. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace verbena::testing {

// Long enough for a sanitizer on a busy machine; nothing waits for it unless something is wrong.
inline constexpr std::chrono::seconds kPatience{60};

struct ProcessOptions {
  int descriptors = 0;                        // RLIMIT_NOFILE; 0: inherited
  bool may_bind_low_ports = true;             // false: without CAP_NET_BIND_SERVICE, also as root
  std::vector<std::string> environment = {};  // "NAME=value", added
};

class Process {
 public:
  // argv[0] is the program's path.
  explicit Process(std::vector<std::string> argv, const ProcessOptions& options = {});
  ~Process();  // kills it if it still runs
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The first line of stdout, from where the last call stopped, that contains `part`. Empty, and
  // the test has failed, if the output ends or the deadline passes before.
  std::string LineWith(const std::string& part) { return LineWith(out_, part); }
  std::string ErrorLineWith(const std::string& part) { return LineWith(err_, part); }  // of stderr

  void Kill(int signal);
  // Reads all output and waits for the end. The exit status; 128 + N after signal N; -1, and the
  // test has failed, if it still ran at the deadline.
  int Wait(std::chrono::milliseconds patience = kPatience);

  // What came so far; all of it after Wait().
  const std::string& out() const { return out_.text; }
  const std::string& err() const { return err_.text; }
  pid_t pid() const { return pid_; }

 private:
  struct Stream {
    int fd = -1;
    std::string text;
    size_t seen = 0;  // by LineWith
  };
  void Exec(const std::vector<std::string>& argv, const ProcessOptions& options);
  std::string LineWith(Stream& stream, const std::string& part);
  bool ReadSome(std::chrono::steady_clock::time_point deadline);
  std::string Describe() const;

  std::string name_;
  pid_t pid_ = -1;
  Stream out_;
  Stream err_;
};

// Runs it to its end.
struct Finished {
  int status = -1;
  std::string out;
  std::string err;
};
Finished RunToEnd(std::vector<std::string> argv, const ProcessOptions& options = {});

}  // namespace verbena::testing
