// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/store.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"

namespace verbena::volume {
namespace {

constexpr size_t kLongestName = 200;  // the file of checksums has a longer one

// The first half of the kernel's UUID for this run of the machine.
uint64_t ReadBoot() {
  std::string text;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> text;
  const std::string hex = absl::StrReplaceAll(text, {{"-", ""}}).substr(0, 16);
  const uint64_t boot = hex.empty() ? 0 : std::stoull(hex, nullptr, 16);
  return boot == 0 ? 1 : boot;
}

absl::Status CheckName(const std::string& name) {
  const bool plain =
      std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c != 127; });
  if (!name.empty() && name.front() != '.' && name.find('/') == std::string::npos && plain &&
      name.size() <= kLongestName) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "a volume's name has 1 to 200 visible characters, no slash and no dot in front");
}

}  // namespace

Store::Store(const StoreOptions& options) : options_(options), workers_(options.workers) {}
Store::~Store() = default;

StoredOptions Store::For(absl::Time lock_by) const {
  return {.direct = options_.direct,
          .read_only = options_.read_only,
          .boot = options_.boot,
          .lock_by = lock_by};
}

absl::StatusOr<std::unique_ptr<Store>> Store::Open(
    const std::vector<std::string>& paths, const StoreOptions& options,
    absl::FunctionRef<void(const std::string&)> note) {
  auto store = std::unique_ptr<Store>(new Store(options));
  if (options.boot == 0) store->options_.boot = ReadBoot();
  if (options.uring) {
    absl::Status why;
    store->disk_ = OpenUring(&why);
    if (store->disk_ == nullptr) note(absl::StrCat(why.message(), "; threads do its work"));
  }
  if (store->disk_ == nullptr) store->disk_ = OpenThreads(store->workers_);

  std::error_code error;
  std::vector<std::filesystem::path> files;
  if (paths.size() == 1 && std::filesystem::is_directory(paths[0], error)) {
    store->folder_ = paths[0];
    for (const auto& entry : std::filesystem::directory_iterator(paths[0], error)) {
      if (entry.is_regular_file(error) &&
          !absl::StartsWith(entry.path().filename().string(), ".")) {
        files.push_back(entry.path());
      }
    }
    if (error)
      return absl::UnavailableError(absl::StrCat("list ", paths[0], ": ", error.message()));
    std::sort(files.begin(), files.end());
  } else {
    files.assign(paths.begin(), paths.end());
  }
  const absl::Time lock_by = absl::Now() + options.patience;
  for (const auto& file : files) {
    const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
    const std::string name = file.filename().string();
    if (const absl::Status status = store->OpenOne(folder, name, lock_by, note); !status.ok()) {
      note(absl::StrCat(name, " cannot be used: ", status.message()));
      Info info;
      info.set_name(name);
      info.set_unusable(std::string(status.message()));
      store->unusable_.push_back(info);
    }
  }
  return store;
}

absl::Status Store::OpenOne(const std::string& folder, const std::string& name, absl::Time lock_by,
                            absl::FunctionRef<void(const std::string&)> note) {
  if (auto status = CheckName(name); !status.ok()) return status;
  auto volume = StoredVolume::Open(folder, name, *disk_, For(lock_by));
  if (!volume.ok()) return volume.status();
  for (const std::string& what : (*volume)->notes()) note(absl::StrCat(name, ": ", what));
  const std::lock_guard guard(lock_);
  if (by_name_.contains(name) || by_id_.contains((*volume)->id())) {
    return absl::AlreadyExistsError("there is one of this name, or a copy with its checksums");
  }
  by_name_[name] = by_id_[(*volume)->id()] = volume->get();
  volumes_.push_back(*std::move(volume));
  return absl::OkStatus();
}

std::vector<Info> Store::List() const {
  std::vector<Info> all;
  {
    const std::lock_guard guard(lock_);
    for (const auto& [name, volume] : by_name_) all.push_back(volume->info());
    all.insert(all.end(), unusable_.begin(), unusable_.end());
  }
  std::sort(all.begin(), all.end(),
            [](const Info& a, const Info& b) { return a.name() < b.name(); });
  return all;
}

absl::StatusOr<StoredVolume*> Store::Find(uint64_t id) const {
  const std::lock_guard guard(lock_);
  if (const auto found = by_id_.find(id); found != by_id_.end()) return found->second;
  return absl::NotFoundError("there is no such volume, or no longer");
}

absl::StatusOr<StoredVolume*> Store::FindByName(const std::string& name) const {
  const std::lock_guard guard(lock_);
  if (const auto found = by_name_.find(name); found != by_name_.end()) return found->second;
  for (const Info& info : unusable_) {
    if (info.name() == name) return absl::FailedPreconditionError(info.unusable());
  }
  return absl::NotFoundError(absl::StrCat("there is no volume ", name));
}

absl::StatusOr<Info> Store::CreateNow(const std::string& name, uint64_t bytes) {
  if (auto status = CheckName(name); !status.ok()) return status;
  if (folder_.empty()) {
    return absl::FailedPreconditionError("the server has some named files, not a folder");
  }
  if (options_.read_only) return absl::PermissionDeniedError("the server is read-only");
  const std::lock_guard guard(creating_);
  if (auto status = StoredVolume::Create(folder_, name, bytes); !status.ok()) return status;
  const absl::Status status =
      OpenOne(folder_, name, absl::InfinitePast(), [](const std::string&) {});
  if (!status.ok()) return status;
  auto made = FindByName(name);
  if (!made.ok()) return made.status();
  return (*made)->info();
}

rpc::Task<absl::StatusOr<Info>> Store::Create(std::string name, uint64_t bytes) {
  absl::StatusOr<Info> made =
      co_await workers_.Run([this, &name, bytes] { return CreateNow(name, bytes); });
  co_return made;
}

rpc::Task<absl::Status> Store::Remove(uint64_t id) {
  auto volume = Find(id);
  if (!volume.ok()) co_return volume.status();
  absl::Status status = co_await (*volume)->Remove(workers_);
  if (!status.ok()) co_return status;
  const std::lock_guard guard(lock_);
  by_id_.erase(id);
  by_name_.erase((*volume)->name());
  co_return status;
}

rpc::Task<absl::StatusOr<Info>> Store::Resize(uint64_t id, uint64_t bytes) {
  auto volume = Find(id);
  if (!volume.ok()) co_return volume.status();
  const absl::Status status = co_await (*volume)->Resize(bytes, workers_);
  if (!status.ok()) co_return status;
  co_return (*volume)->info();
}

}  // namespace verbena::volume
