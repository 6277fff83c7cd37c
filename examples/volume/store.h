// SPDX-License-Identifier: Apache-2.0
// All volumes of a server: the files of a folder, or some that were named. Any thread; what blocks
// does so on a worker.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "examples/volume/disk.h"
#include "examples/volume/stored_volume.h"
#include "examples/volume/workers.h"
#include "rpc/task.h"

namespace verbena::volume {

struct StoreOptions {
  bool direct = true;
  bool read_only = false;
  bool uring = true;
  int workers = 8;    // threads for what blocks; without io_uring all I/O does
  uint64_t boot = 0;  // 0: the kernel's boot_id says
  // For volumes of a server that was killed, and whose last I/O has not ended.
  absl::Duration patience = absl::Seconds(10);
};

class Store {
 public:
  // A folder, or files that are each in any folder. Files that cannot be used are listed with the
  // reason. `note` is told what had to be done.
  static absl::StatusOr<std::unique_ptr<Store>> Open(
      const std::vector<std::string>& paths, const StoreOptions& options,
      absl::FunctionRef<void(const std::string&)> note);
  ~Store();  // when no coroutine runs

  uint64_t boot() const { return options_.boot; }
  const char* disk() const { return disk_->name(); }

  std::vector<Info> List() const;
  // NotFound; FailedPrecondition and why it cannot be used. They stay until the store goes.
  absl::StatusOr<StoredVolume*> Find(uint64_t id) const;
  absl::StatusOr<StoredVolume*> FindByName(const std::string& name) const;

  rpc::Task<absl::StatusOr<Info>> Create(std::string name, uint64_t bytes);
  rpc::Task<absl::Status> Remove(uint64_t id);
  rpc::Task<absl::StatusOr<Info>> Resize(uint64_t id, uint64_t bytes);

 private:
  explicit Store(const StoreOptions& options);
  absl::Status OpenOne(const std::string& folder, const std::string& name, absl::Time lock_by,
                       absl::FunctionRef<void(const std::string&)> note);
  absl::StatusOr<Info> CreateNow(const std::string& name, uint64_t bytes);
  StoredOptions For(absl::Time lock_by) const;

  StoreOptions options_;
  Workers workers_;
  std::unique_ptr<Disk> disk_;
  std::string folder_;  // empty: files were named, and there are no others

  std::mutex creating_;  // one at a time
  mutable std::mutex lock_;
  std::vector<std::unique_ptr<StoredVolume>> volumes_;  // removed ones too: who used them may go on
  absl::flat_hash_map<std::string, StoredVolume*> by_name_;
  absl::flat_hash_map<uint64_t, StoredVolume*> by_id_;
  std::vector<Info> unusable_;
};

}  // namespace verbena::volume
