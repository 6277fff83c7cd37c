// SPDX-License-Identifier: Apache-2.0
// volume_server: serves files as volumes. See Usage().
#include "rpc/server.h"

#include <getopt.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "examples/check.h"
#include "examples/volume/service.h"

using namespace verbena;  // NOLINT: a program

namespace {

constexpr char kUsage[] =
    R"(usage: volume_server [options] FOLDER          every file in it is a volume
       volume_server [options] FILE...         these are

Volumes are plain files of a multiple of 4096 bytes. Beside each, in .NAME.crc32c, stand the CRC32Cs
of its blocks; a file that has none gets them when the server starts.

  -l, --listen ADDRESS   where callers come in; [::]:7500
      --buffered         through the page cache, not O_DIRECT
      --no-uring         threads in place of io_uring
  -r, --read-only        nobody writes
      --memory MIB       of blocks on their way, at most; 256
      --threads N        that move connections; 1
      --spin US          how long such a thread looks on before it sleeps; 50
  -h, --help

  mkdir volumes; truncate -s 1G volumes/disk0
  volume_server volumes
)";

struct Options {
  std::string listen = "[::]:7500";
  volume::StoreOptions store;
  rpc::ServerOptions server = {.handler_threads = 0};
  size_t memory = 256;
  std::vector<std::string> paths;
};

[[noreturn]] void Mistake(const std::string& what) {
  fprintf(stderr, "volume_server: %s\nvolume_server --help says how it is called.\n", what.c_str());
  exit(2);
}

int Number(const char* option, const char* text, int least) {
  int value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < least) {
    Mistake(std::string(option) + " " + text + ": a number from " + std::to_string(least));
  }
  return value;
}

Options Parse(int argc, char** argv) {
  enum { kBuffered = 256, kNoUring, kMemory, kThreads, kSpin };
  static const option known[] = {{"listen", required_argument, nullptr, 'l'},
                                 {"buffered", no_argument, nullptr, kBuffered},
                                 {"no-uring", no_argument, nullptr, kNoUring},
                                 {"read-only", no_argument, nullptr, 'r'},
                                 {"memory", required_argument, nullptr, kMemory},
                                 {"threads", required_argument, nullptr, kThreads},
                                 {"spin", required_argument, nullptr, kSpin},
                                 {"help", no_argument, nullptr, 'h'},
                                 {}};
  Options options;
  for (int c; (c = getopt_long(argc, argv, "l:rh", known, nullptr)) != -1;) {
    switch (c) {
      case 'l':
        options.listen = optarg;
        break;
      case 'r':
        options.store.read_only = true;
        break;
      case kBuffered:
        options.store.direct = false;
        break;
      case kNoUring:
        options.store.uring = false;
        break;
      case kMemory:
        options.memory = static_cast<size_t>(Number("--memory", optarg, 8));
        break;
      case kThreads:
        options.server.threads = Number("--threads", optarg, 1);
        break;
      case kSpin:
        options.server.spin = absl::Microseconds(Number("--spin", optarg, 0));
        break;
      case 'h':
        fputs(kUsage, stdout);
        exit(0);
      default:
        exit(2);  // getopt has said what is wrong
    }
  }
  options.paths.assign(argv + optind, argv + argc);
  if (options.paths.empty()) Mistake("which folder, or which files?");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  sigset_t ends;  // before the server's threads start, which so leave them to sigwait()
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);

  const auto store = Check(volume::Store::Open(options.paths, options.store, [](const auto& what) {
    fprintf(stderr, "volume_server: %s\n", what.c_str());
  }));
  volume::VolumeService service(*store, options.memory << 20);
  const auto server = Check(rpc::Server::Open(options.server));
  Check(server->Add(service));
  Check(server->Start(options.listen));
  for (const volume::Info& info : store->List()) {
    if (!info.unusable().empty()) continue;
    printf("%s: %llu bytes, %s, %s\n", info.name().c_str(),
           static_cast<unsigned long long>(info.bytes()),
           info.writable() ? "writable" : "read-only", info.direct() ? "O_DIRECT" : "page cache");
  }
  printf("serving with %s on port %d\n", store->disk(), server->port());
  fflush(stdout);

  int signal = 0;
  sigwait(&ends, &signal);
  if (!server->Shutdown(absl::Seconds(5)).ok()) fprintf(stderr, "some calls were cancelled\n");
}
