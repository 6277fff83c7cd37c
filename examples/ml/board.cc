// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/board.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "rpc/names/etcd.h"

namespace ml {
namespace {

// inotify tells of no file that another machine made: on network file systems it takes this long.
constexpr absl::Duration kLook = absl::Milliseconds(100);
constexpr absl::Duration kLifetime = absl::Hours(1);  // of what is in etcd

class FolderBoard final : public Board {
 public:
  FolderBoard(std::string folder, int watch) : folder_(std::move(folder)), watch_(watch) {}
  ~FolderBoard() override { close(watch_); }

  absl::Status Put(const std::string& key, const std::string& value) override {
    const std::string path = folder_ + "/" + key;
    const std::string part = absl::StrCat(path, ".", getpid(), ".part");
    std::ofstream(part, std::ios::binary) << value << std::flush;
    std::error_code error;
    if (std::filesystem::file_size(part, error) != value.size() || error) {
      return absl::UnavailableError("cannot write " + part);
    }
    // Appears whole, and never twice.
    const int linked = link(part.c_str(), path.c_str());
    const int why = errno;
    unlink(part.c_str());
    if (linked == 0) return absl::OkStatus();
    if (why == EEXIST) {
      return absl::AlreadyExistsError(
          path + " is there already: two ranks have one number, or the folder is an old job's");
    }
    return absl::ErrnoToStatus(why, path);
  }

  absl::StatusOr<std::string> Wait(const std::string& key, absl::Duration timeout) override {
    const std::string path = folder_ + "/" + key;
    const absl::Time deadline = absl::Now() + timeout;
    for (;;) {
      if (std::ifstream file(path, std::ios::binary); file) {
        return std::string(std::istreambuf_iterator<char>(file), {});
      }
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError(
            absl::StrCat("nobody wrote ", path, " within ", absl::FormatDuration(timeout)));
      }
      pollfd ready{.fd = watch_, .events = POLLIN, .revents = 0};
      poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(std::min(left, kLook))) + 1);
      std::array<char, 4096> events;
      while (read(watch_, events.data(), events.size()) > 0) {
      }
    }
  }

 private:
  const std::string folder_;
  const int watch_;
};

class EtcdBoard final : public Board {
 public:
  EtcdBoard(std::unique_ptr<verbena::rpc::KeyStore> store, const std::string& job)
      : store_(std::move(store)), prefix_(absl::StrCat("verbena-ml/", job, "/")) {}

  absl::Status Put(const std::string& key, const std::string& value) override {
    const std::string name = prefix_ + key;
    const auto before = store_->Get(name);
    if (!before.ok()) return before.status();
    if (before->has_value()) {
      return absl::AlreadyExistsError(
          name + " is there already: two ranks have one number, or the name is another job's");
    }
    return store_->Put(name, value, kLifetime);
  }

  absl::StatusOr<std::string> Wait(const std::string& key, absl::Duration timeout) override {
    auto value = store_->WaitFor(prefix_ + key, timeout);
    if (!absl::IsDeadlineExceeded(value.status())) return value;
    return absl::DeadlineExceededError(
        absl::StrCat("nobody wrote ", prefix_, key, " within ", absl::FormatDuration(timeout)));
  }

 private:
  const std::unique_ptr<verbena::rpc::KeyStore> store_;
  const std::string prefix_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Board>> OpenBoard(const std::string& where) {
  absl::string_view rest = where;
  if (absl::ConsumePrefix(&rest, "folder:")) {
    const std::string folder(rest);
    const int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch < 0) return absl::ErrnoToStatus(errno, "inotify");
    if (inotify_add_watch(watch, folder.c_str(), IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0) {
      const int why = errno;
      close(watch);
      return absl::ErrnoToStatus(why, "the folder " + folder);
    }
    return std::make_unique<FolderBoard>(folder, watch);
  }
  if (absl::ConsumePrefix(&rest, "etcd:") && absl::StrContains(rest, '/')) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(rest, absl::MaxSplits('/', 1));
    auto store = verbena::rpc::OpenEtcd(parts.first);
    if (!store.ok()) return store.status();
    return std::make_unique<EtcdBoard>(*std::move(store), parts.second);
  }
  return absl::InvalidArgumentError("a board is folder:PATH or etcd:HOST:PORT/JOB, not \"" + where +
                                    "\"");
}

}  // namespace ml
