// SPDX-License-Identifier: Apache-2.0
// `verbena`: looks at devices, tries connections, measures them.
#include <signal.h>

#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tools/verbena/commands.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/text.h"

namespace verbena::tool {
namespace {

struct Command {
  const char* name;
  const char* help;
  int (*run)(int argc, char** argv);
};

constexpr std::array kCommands = {
    Command{"devices", "which devices this machine has, and why some cannot be used", Devices},
    Command{"ping", "try a connection with reads, writes and messages, as rping does", Ping},
    Command{"perf", "measure latency and bandwidth between two machines", Perf},
    Command{"run", "start a program for RDMA devices on plain TCP", Run},
};

std::string Help() {
  std::vector<std::vector<std::string>> rows;
  rows.reserve(kCommands.size());
  for (const Command& command : kCommands) {
    rows.push_back({absl::StrCat("  ", command.name), command.help});
  }
  return absl::StrCat("verbena: RDMA verbs on RDMA devices and on plain TCP\n\nCommands:\n",
                      Table(rows), R"(
Examples:
  verbena devices                              what can be used here
  verbena ping -s                              on one machine, and on the other:
  verbena ping -c -a HOST -C 10 -v -V          ten pings, data shown and compared
  verbena perf -s                              on one machine, and on the other:
  verbena perf -c -a HOST --op write --mode bw --size 1048576
  verbena run -- rping -s                      a program that wants an RDMA device
  verbena ping --help                          every option of a command

Environment:
  VERBENA_PCAP=FILE    what goes over TCP, with all payload, for Wireshark
  VERBENA_LOG=info     say more on stderr

Exit status: 0 done, 1 it failed (stderr says why and what to do), 2 command line not understood.
)");
}

int Dispatch(int argc, char** argv) {
  if (argc < 2) {
    fputs(Help().c_str(), stderr);
    return kUsage;
  }
  absl::string_view name = argv[1];
  const bool help = name == "help" || name == "--help" || name == "-h";
  if (help && argc == 2) {
    fputs(Help().c_str(), stdout);
    return kOk;
  }
  if (name == "--version") {
    puts("verbena " VERBENA_VERSION);
    return kOk;
  }
  if (help) name = argv[2];  // `verbena help ping` is `verbena ping --help`
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    names.push_back(command.name);
    if (name != command.name) continue;
    std::array<char, 7> flag = {"--help"};
    std::array<char*, 3> wanted = {argv[2], flag.data(), nullptr};
    return help ? command.run(2, wanted.data()) : command.run(argc - 1, argv + 1);
  }
  const std::string nearest = Nearest(name, names);
  return Misused("", absl::InvalidArgumentError(absl::StrCat(
                         "there is no command `", Printable(name), "`",
                         nearest.empty() ? "." : absl::StrCat("; did you mean `", nearest, "`?"))));
}

}  // namespace
}  // namespace verbena::tool

int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);  // whoever reads us through a pipe sees lines as they come
  // A reader that left is an error to report, not a death. `run` leaves it to its program.
  if (argc < 2 || std::string_view(argv[1]) != "run") signal(SIGPIPE, SIG_IGN);
  return verbena::tool::Dispatch(argc, argv);
}
