// SPDX-License-Identifier: Apache-2.0
// volume: the volumes of a volume_server at the command line. See kUsage.
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "examples/volume/client.h"
#include "examples/volume/copy.h"

using namespace verbena;  // NOLINT: a program
using volume::Client;
using volume::Info;
using volume::kBlock;

namespace {

constexpr char kUsage[] = R"(usage: volume [-s HOST:PORT] COMMAND ...

  list                           the volumes of the server
  create NAME BYTES              a volume of zeros; BYTES may end in K, M, G or T
  info NAME                      its length, and how the server reads and writes it
  read NAME [OFFSET [BYTES]]     to standard output; all of it
  write NAME [OFFSET]            from standard input; then flushes
  copy FROM TO                   then flushes; :NAME is a volume, anything else a file. A volume
                                 that is not there is created, as long as the file
  trim NAME OFFSET BYTES         zeros that take no room
  flush NAME                     when it returns, all that was written survives the machine
  resize NAME BYTES
  remove NAME

  -s, --server HOST:PORT   otherwise $VOLUME_SERVER, otherwise localhost:7500
  -p, --patience SECONDS   how long a server that went away is waited for; 10
  -h, --help

Offsets and lengths are multiples of 4096. Each block is checked against its CRC32C, which was made
when it was written.

  volume create disk0 1G
  volume copy debian.img :disk0
  volume -s storage:7500 copy :disk0 back.img
  volume read disk0 0 4096 | hd
)";

struct Arguments {
  std::string server;
  absl::Duration patience = absl::Seconds(10);
  std::string command;
  std::vector<std::string> rest;
};

[[noreturn]] void Mistake(const std::string& what) {
  fprintf(stderr, "volume: %s\nvolume --help says how it is called.\n", what.c_str());
  exit(2);
}

uint64_t Bytes(const std::string& text) {
  constexpr char kUnits[] = "KMGT";
  std::string digits = text;
  int shift = 0;
  for (int i = 0; kUnits[i] != 0; ++i) {
    if (!digits.empty() && toupper(digits.back()) == kUnits[i]) {
      shift = 10 * (i + 1);
      digits.pop_back();
      break;
    }
  }
  uint64_t value = 0;
  if (!absl::SimpleAtoi(digits, &value) || value > (uint64_t{1} << 62 >> shift)) {
    Mistake(absl::StrCat("'", text, "' is no number of bytes"));
  }
  value <<= shift;
  if (value % kBlock != 0) Mistake(absl::StrCat(text, " is not a multiple of 4096"));
  return value;
}

Arguments Parse(int argc, char** argv) {
  static const option known[] = {{"server", required_argument, nullptr, 's'},
                                 {"patience", required_argument, nullptr, 'p'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {}};
  Arguments arguments;
  const char* named = getenv("VOLUME_SERVER");
  arguments.server = named == nullptr ? "localhost:7500" : named;
  for (int c; (c = getopt_long(argc, argv, "s:p:h", known, nullptr)) != -1;) {
    int seconds = 0;
    switch (c) {
      case 's':
        arguments.server = optarg;
        break;
      case 'p':
        if (!absl::SimpleAtoi(optarg, &seconds) || seconds < 0) Mistake("--patience: seconds");
        arguments.patience = absl::Seconds(seconds);
        break;
      case 'h':
        fputs(kUsage, stdout);
        exit(0);
      default:
        exit(2);  // getopt has said what is wrong
    }
  }
  if (optind == argc) Mistake("which command?");
  arguments.command = argv[optind];
  arguments.rest.assign(argv + optind + 1, argv + argc);
  return arguments;
}

// A descriptor that is read or written to its end.
absl::StatusOr<size_t> ReadFull(int fd, std::span<std::byte> into) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = read(fd, into.data() + done, into.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

absl::Status WriteFull(int fd, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t put = write(fd, from.data(), from.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return absl::ErrnoToStatus(errno, "write");
    from = from.subspan(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

void Print(const Info& info) {
  if (!info.unusable().empty()) {
    printf("%14s  %s: %s\n", "unusable", info.name().c_str(), info.unusable().c_str());
    return;
  }
  printf("%14llu  %s%s\n", static_cast<unsigned long long>(info.bytes()), info.name().c_str(),
         info.writable() ? "" : "  (read-only)");
}

absl::Status List(Client& client, const std::vector<std::string>&) {
  const auto all = client.List();
  if (!all.ok()) return all.status();
  for (const Info& info : *all) Print(info);
  return absl::OkStatus();
}

absl::Status Create(Client& client, const std::vector<std::string>& words) {
  const auto made = client.Create(words[0], Bytes(words[1]));
  if (made.ok()) Print(*made);
  return made.status();
}

absl::Status ShowInfo(Client& client, const std::vector<std::string>& words) {
  const auto opened = client.OpenVolume(words[0]);
  if (!opened.ok()) return opened.status();
  const Info& info = (*opened)->info();
  printf("name    %s\nbytes   %llu\nid      %016llx\naccess  %s\ndisk    %s, %s\nblock   %llu\n",
         info.name().c_str(), static_cast<unsigned long long>(info.bytes()),
         static_cast<unsigned long long>(info.id()), info.writable() ? "read and write" : "read",
         info.disk().c_str(), info.direct() ? "O_DIRECT" : "page cache",
         static_cast<unsigned long long>(kBlock));
  return absl::OkStatus();
}

absl::Status Read(Client& client, const std::vector<std::string>& words) {
  const auto opened = client.OpenVolume(words[0]);
  if (!opened.ok()) return opened.status();
  volume::Volume& from = **opened;
  const uint64_t offset = words.size() > 1 ? Bytes(words[1]) : 0;
  const uint64_t left = offset < from.info().bytes() ? from.info().bytes() - offset : 0;
  return volume::CopyOut(from, offset, words.size() > 2 ? Bytes(words[2]) : left,
                         [](auto bytes) { return WriteFull(STDOUT_FILENO, bytes); });
}

absl::Status FillFrom(int fd, volume::Volume& into, uint64_t offset) {
  const auto copied =
      volume::CopyIn([fd](auto memory) { return ReadFull(fd, memory); }, into, offset);
  if (!copied.ok()) return copied.status();
  if (const absl::Status flushed = into.Flush(); !flushed.ok()) return flushed;
  fprintf(stderr, "%llu bytes written and flushed\n", static_cast<unsigned long long>(*copied));
  return absl::OkStatus();
}

absl::Status Write(Client& client, const std::vector<std::string>& words) {
  const auto opened = client.OpenVolume(words[0]);
  if (!opened.ok()) return opened.status();
  return FillFrom(STDIN_FILENO, **opened, words.size() > 1 ? Bytes(words[1]) : 0);
}

absl::Status CopyFile(Client& client, const std::string& file, const std::string& name) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat now = {};
  if (fd < 0 || fstat(fd, &now) != 0) return absl::ErrnoToStatus(errno, file);
  auto opened = client.OpenVolume(name);
  if (absl::IsNotFound(opened.status())) {
    const uint64_t bytes = (static_cast<uint64_t>(now.st_size) + kBlock - 1) / kBlock * kBlock;
    const auto made = client.Create(name, std::max(bytes, kBlock));
    if (!made.ok()) return made.status();
    opened = client.OpenVolume(name);
  }
  if (!opened.ok()) return opened.status();
  const absl::Status status = FillFrom(fd, **opened, 0);
  close(fd);
  return status;
}

absl::Status CopyToFile(Client& client, const std::string& name, const std::string& file) {
  const auto opened = client.OpenVolume(name);
  if (!opened.ok()) return opened.status();
  const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, file);
  const absl::Status status = volume::CopyOut(**opened, 0, (*opened)->info().bytes(),
                                              [fd](auto bytes) { return WriteFull(fd, bytes); });
  if (!status.ok()) return status;
  if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS) return absl::ErrnoToStatus(errno, file);
  close(fd);
  fprintf(stderr, "%llu bytes read\n", static_cast<unsigned long long>((*opened)->info().bytes()));
  return absl::OkStatus();
}

absl::Status Copy(Client& client, const std::vector<std::string>& words) {
  const bool from_volume = absl::StartsWith(words[0], ":");
  if (from_volume == absl::StartsWith(words[1], ":")) {
    Mistake("copy wants a file and a :VOLUME, in either order");
  }
  if (from_volume) return CopyToFile(client, words[0].substr(1), words[1]);
  return CopyFile(client, words[0], words[1].substr(1));
}

absl::Status Trim(Client& client, const std::vector<std::string>& words) {
  const auto opened = client.OpenVolume(words[0]);
  if (!opened.ok()) return opened.status();
  return (*opened)->Trim(Bytes(words[1]), Bytes(words[2]));
}

absl::Status Flush(Client& client, const std::vector<std::string>& words) {
  const auto opened = client.OpenVolume(words[0]);
  return opened.ok() ? (*opened)->Flush() : opened.status();
}

absl::Status Resize(Client& client, const std::vector<std::string>& words) {
  const auto resized = client.Resize(words[0], Bytes(words[1]));
  if (resized.ok()) Print(*resized);
  return resized.status();
}

absl::Status Remove(Client& client, const std::vector<std::string>& words) {
  return client.Remove(words[0]);
}

struct Command {
  size_t least, most;  // words behind it
  std::function<absl::Status(Client&, const std::vector<std::string>&)> run;
};

const std::map<std::string, Command>& Commands() {
  static const auto& all = *new std::map<std::string, Command>{
      {"list", {0, 0, List}},     {"create", {2, 2, Create}}, {"info", {1, 1, ShowInfo}},
      {"read", {1, 3, Read}},     {"write", {1, 2, Write}},   {"copy", {2, 2, Copy}},
      {"trim", {3, 3, Trim}},     {"flush", {1, 1, Flush}},   {"resize", {2, 2, Resize}},
      {"remove", {1, 1, Remove}},
  };
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  const auto command = Commands().find(arguments.command);
  if (command == Commands().end()) Mistake("there is no command " + arguments.command);
  const size_t words = arguments.rest.size();
  if (words < command->second.least || words > command->second.most) {
    Mistake(arguments.command + ": too few words, or too many");
  }
  auto client = Client::Open(arguments.server, {.patience = arguments.patience});
  const absl::Status status =
      client.ok() ? command->second.run(**client, arguments.rest) : client.status();
  if (status.ok()) return 0;
  fprintf(stderr, "volume %s: %s\n", arguments.command.c_str(),
          std::string(status.message()).c_str());
  return 1;
}
