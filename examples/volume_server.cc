// SPDX-License-Identifier: Apache-2.0
// Serves the files of a folder as volumes: examples/volume.proto.
//   volume_server FOLDER [HOST:7500]
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "examples/check.h"
#include "examples/volume.verbena.h"

using verbena::rpc::ServerContext;

namespace {

constexpr uint64_t kMostBytes = 16 << 20;  // of one call

// An open file of the folder.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

class Volumes final : public examples::Volume::Service {
 public:
  explicit Volumes(std::string folder) : folder_(std::move(folder)) {}

  absl::StatusOr<examples::Moved> Read(ServerContext& call, const examples::Range& range) override {
    auto file = Open(range.name(), O_RDONLY);
    if (!file.ok()) return file.status();
    if (auto status = Check(range); !status.ok()) return status;
    std::vector<std::byte> block(range.bytes());
    const ssize_t bytes = pread(file->fd(), block.data(), block.size(), Offset(range));
    if (bytes < 0) return Failed("read", range.name());
    block.resize(static_cast<size_t>(bytes));
    if (auto sent = call.Push(range.memory(), 0, block); !sent.ok()) return sent;
    return Done(block.size());
  }

  absl::StatusOr<examples::Moved> Write(ServerContext& call,
                                        const examples::Range& range) override {
    auto file = Open(range.name(), O_WRONLY | O_CREAT);
    if (!file.ok()) return file.status();
    if (auto status = Check(range); !status.ok()) return status;
    std::vector<std::byte> block(range.bytes());
    if (auto came = call.Pull(range.memory(), 0, block); !came.ok()) return came;
    const ssize_t bytes = pwrite(file->fd(), block.data(), block.size(), Offset(range));
    if (bytes != static_cast<ssize_t>(block.size())) return Failed("write", range.name());
    return Done(block.size());
  }

  absl::StatusOr<examples::Nothing> Flush(ServerContext&,
                                          const examples::VolumeName& volume) override {
    auto file = Open(volume.name(), O_RDONLY);
    if (!file.ok()) return file.status();
    if (fdatasync(file->fd()) != 0) return Failed("flush", volume.name());
    return examples::Nothing();
  }

  absl::StatusOr<examples::VolumeList> List(ServerContext&, const examples::Nothing&) override {
    examples::VolumeList list;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
      if (!entry.is_regular_file(error)) continue;
      auto* volume = list.add_volumes();
      volume->set_name(entry.path().filename());
      volume->set_bytes(entry.file_size(error));
    }
    return list;
  }

 private:
  static off_t Offset(const examples::Range& range) { return static_cast<off_t>(range.offset()); }
  static absl::Status Check(const examples::Range& range) {
    constexpr uint64_t kMostOffset = uint64_t{1} << 62;
    if (range.bytes() <= kMostBytes && range.offset() <= kMostOffset) return absl::OkStatus();
    return absl::InvalidArgumentError("a range has at most 16 MiB, and starts below 2^62");
  }
  static examples::Moved Done(size_t bytes) {
    examples::Moved moved;
    moved.set_bytes(bytes);
    return moved;
  }
  static absl::Status Failed(const std::string& what, const std::string& name) {
    return absl::ErrnoToStatus(errno, what + " " + name);
  }

  absl::StatusOr<File> Open(const std::string& name, int flags) const {
    if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos) {
      return absl::InvalidArgumentError("a volume's name has no slash and no dot in front");
    }
    const int fd = open((folder_ + "/" + name).c_str(), flags | O_CLOEXEC, 0644);
    if (fd < 0) return Failed("open", name);
    return File(fd);
  }

  const std::string folder_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || !std::filesystem::is_directory(argv[1])) {
    fprintf(stderr, "usage: volume_server FOLDER [HOST:7500]\n");
    return 2;
  }
  sigset_t ends;  // before the server's threads start, which so leave them to sigwait()
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);

  Volumes volumes(argv[1]);
  auto server = Check(verbena::rpc::Server::Open());
  Check(server->Add(volumes));
  Check(server->Start(argc > 2 ? argv[2] : "[::]:7500"));
  printf("serving %s on port %d\n", argv[1], server->port());
  fflush(stdout);

  int signal = 0;
  sigwait(&ends, &signal);
  if (!server->Shutdown(absl::Seconds(5)).ok()) fprintf(stderr, "some calls were cancelled\n");
}
