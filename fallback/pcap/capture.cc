// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "transport/log.h"

namespace verbena::pcap {
namespace {

constexpr uint32_t kNumbersApart = 1 << 20;  // first sequence numbers of two connections

io::Nanos Clock(clockid_t which) {
  timespec now;
  clock_gettime(which, &now);
  return now.tv_sec * io::Nanos{1'000'000'000} + now.tv_nsec;
}

std::string Key(const io::Address& from, const io::Address& to) {
  return absl::StrCat(from.ToString(), " ", to.ToString());
}

// An empty file, or one that a capture was in.
bool MayBeReplaced(int fd) {
  constexpr unsigned char kSection[4] = {0x0a, 0x0d, 0x0d, 0x0a};
  unsigned char begin[sizeof(kSection)];
  const ssize_t size = pread(fd, begin, sizeof(begin), 0);
  return size == 0 || (size == sizeof(begin) && memcmp(begin, kSection, sizeof(begin)) == 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PacketFile>> OpenFile(absl::string_view pattern) {
  const std::string pid = absl::StrCat(getpid());
  const std::string name = absl::StrReplaceAll(pattern, {{"%p", pid}});
  const auto refused = [&name](absl::string_view why) {
    return absl::FailedPreconditionError(absl::StrCat("capture ", name, ": ", why));
  };
  // Not for others to read: it will hold what was sent.
  const int fd = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
  if (fd < 0) {
    return refused(absl::StrCat(strerror(errno), "; nothing is captured. Name a file, in ",
                                "VERBENA_PCAP, that this user may write"));
  }
  struct stat info;
  absl::Status why;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    why = refused("it is no regular file; nothing is captured. Name one in VERBENA_PCAP");
  } else if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    why = refused(
        "another process is writing it; this one is not captured. Put %p into VERBENA_PCAP: it "
        "becomes the number of the process");
  } else if (!MayBeReplaced(fd)) {
    why = refused("it exists and is no capture; it is left alone. Name another in VERBENA_PCAP");
  } else if ((info.st_mode & 077) != 0 && fchmod(fd, 0600) != 0) {
    why = refused(absl::StrCat("others may read it, and that cannot be changed: ", strerror(errno),
                               "; nothing is captured. Remove it or name another in VERBENA_PCAP"));
  } else if (ftruncate(fd, 0) != 0) {
    why = refused(absl::StrCat(strerror(errno), "; nothing is captured"));
  }
  if (!why.ok()) {
    close(fd);
    return why;
  }
  VERBENA_LOG(kInfo, "fallback", "capture ", name, ": payload is written as it is");
  return std::make_unique<PacketFile>(fd, name,
                                      absl::StrCat(program_invocation_short_name, ".", pid));
}

Capture* Capture::OfProcess() {
  // Not for a program that runs with more rights than who started it.
  const char* pattern = secure_getenv("VERBENA_PCAP");
  if (pattern == nullptr || *pattern == '\0') return nullptr;
  // Never destroyed: service threads may still send while the process exits. A child has a file of
  // its own, or none.
  static std::mutex mutex;
  static pid_t process = 0;
  static Capture* capture = nullptr;
  const std::lock_guard lock(mutex);
  if (process != getpid()) {
    process = getpid();
    absl::StatusOr<std::unique_ptr<PacketFile>> file = OpenFile(pattern);
    if (!file.ok()) VERBENA_LOG(kError, "fallback", std::string(file.status().message()));
    capture = file.ok()
                  ? new Capture(*std::move(file), Clock(CLOCK_REALTIME) - Clock(CLOCK_MONOTONIC))
                  : nullptr;
  }
  return capture;
}

std::unique_ptr<TcpStream> Capture::Begin(int64_t at, const io::Address& local,
                                          const io::Address& peer, bool called) {
  auto stream = std::make_unique<TcpStream>(file_.get(), local, peer);
  if (const auto other = open_.find(Key(peer, local)); other != open_.end()) {
    stream->Join(other->second);
  } else {
    stream->Begin(at, called, connections_++ * kNumbersApart);
  }
  open_[Key(local, peer)] = stream.get();
  return stream;
}

void Capture::Forget(const io::Address& local, const io::Address& peer) {
  open_.erase(Key(local, peer));
}

}  // namespace verbena::pcap
