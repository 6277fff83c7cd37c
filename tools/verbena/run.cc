// SPDX-License-Identifier: Apache-2.0
// `verbena run`: starts a program for libibverbs and librdmacm on the drop-in libraries
// (docs/dropin.md). It becomes the program, which so has the signals and the exit status.
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/verbena/commands.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/flags.h"
#include "tools/verbena/program_file.h"
#include "tools/verbena/text.h"

namespace verbena::tool {
namespace {

// The last leads programs that look for devices as files.
constexpr std::array kLibraries = {"libibverbs.so.1", "librdmacm.so.1", "libverbena_paths.so"};

// As shells and env(1) end when they cannot start a program.
constexpr int kCannotStart = 126;
constexpr int kNoProgram = 127;

bool HasLibraries(const std::filesystem::path& folder) {
  for (const char* name : kLibraries) {
    if (access((folder / name).c_str(), R_OK) != 0) return false;
  }
  return true;
}

// Beside this program: where it is installed, or where it was built.
absl::StatusOr<std::string> FindLibraries() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::vector<std::filesystem::path> tried;
  if (const char* const named = std::getenv("VERBENA_LIBRARIES")) tried.emplace_back(named);
  tried.push_back(self.parent_path() / "../lib/verbena");
  tried.push_back(self.parent_path() / "../../dropin");
  std::string text;
  for (const std::filesystem::path& each : tried) {
    if (HasLibraries(each)) return std::filesystem::canonical(each, error).string();
    absl::StrAppend(&text, text.empty() ? "" : ", ", each.lexically_normal().string());
  }
  return absl::NotFoundError(absl::StrCat(absl::StrJoin(kLibraries, ", "), " are not in ", text,
                                          ". Build them (`bazel build -c opt //dropin:all`), or "
                                          "name their folder in VERBENA_LIBRARIES"));
}

// What the program itself would be found as; empty: there is none.
std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return access(name.c_str(), F_OK) == 0 ? name : "";
  const char* const path = std::getenv("PATH");
  for (const auto folder : absl::StrSplit(path != nullptr ? path : "/usr/bin:/bin", ':')) {
    const std::string found = absl::StrCat(folder.empty() ? "." : folder, "/", name);
    struct stat info;
    if (access(found.c_str(), X_OK) == 0 && stat(found.c_str(), &info) == 0 &&
        S_ISREG(info.st_mode)) {
      return found;
    }
  }
  return "";
}

void Prepend(const char* variable, const std::string& what) {
  const char* const former = std::getenv(variable);
  const bool has = former != nullptr && *former != '\0';
  setenv(variable, (has ? absl::StrCat(what, ":", former) : what).c_str(), 1);
}

void SetEnvironment(const std::string& folder, const std::string& device, const std::string& log) {
  Prepend("LD_LIBRARY_PATH", folder);
  std::vector<std::string> preloaded;
  for (const char* name : kLibraries) preloaded.push_back(absl::StrCat(folder, "/", name));
  Prepend("LD_PRELOAD", absl::StrJoin(preloaded, ":"));
  if (!device.empty()) setenv("VERBENA_DEVICE", device.c_str(), 1);
  if (!log.empty()) setenv("VERBENA_LOG", log.c_str(), 1);
}

std::string Help(const FlagSet& flags) {
  return absl::StrCat(
      "verbena run [--device NAME] [--log LEVEL] -- PROGRAM ARGUMENTS…\n\n"
      "Starts a program that was made for RDMA devices (libibverbs, librdmacm) where there are\n"
      "none: it finds one device for each IP address, and its queue pairs run over TCP.\n\n",
      flags.Help(), R"(
Examples:
  verbena run -- ibv_devices                   what programs see
  verbena run -- ibv_rc_pingpong               on one machine, and on the other:
  verbena run -- ibv_rc_pingpong HOST
  verbena run -- rping -s -a 0.0.0.0           a peer of `verbena ping -c -a HOST`
  verbena run --log info -- ib_write_bw -R     and say on stderr who connects

Exit status: the program's; 127 there is no such program, 126 it cannot be started like this.
)");
}

}  // namespace

int Run(int argc, char** argv) {
  std::string device;
  std::string log;
  FlagSet flags(
      {{'d', "device", "NAME", "only this device, of those that ibv_devices shows", &device},
       {'l', "log", "LEVEL", "what to say on stderr: error, warn, info, debug", &log}});
  int own = 1;
  while (own < argc && std::strcmp(argv[own], "--") != 0) ++own;
  if (absl::Status s = flags.Parse(own, argv); !s.ok()) return Misused(argv[0], s);
  if (flags.help_wanted()) {
    fputs(Help(flags).c_str(), stdout);
    return kOk;
  }
  if (own + 1 >= argc) {
    return Misused(argv[0], absl::InvalidArgumentError("there is no program behind `--`"));
  }
  char** const program = argv + own + 1;
  const absl::StatusOr<std::string> folder = FindLibraries();
  if (!folder.ok()) return Fail(argv[0], folder.status());
  const std::string file = FindProgram(program[0]);
  if (file.empty()) {
    Complain(argv[0], absl::StrCat("there is no program `", Printable(program[0]), "`"));
    return kNoProgram;
  }
  if (absl::Status s = CheckPreloadable(file); !s.ok()) {
    Complain(argv[0], s.message());
    return kCannotStart;
  }
  SetEnvironment(*folder, device, log);
  execv(file.c_str(), program);
  Complain(argv[0], absl::StrCat("cannot start ", Printable(file), ": ", std::strerror(errno)));
  return kCannotStart;
}

}  // namespace verbena::tool
