// SPDX-License-Identifier: Apache-2.0
// A volume at the server: a file, its checksums beside it, and who may do what to it now. The
// coroutines may go on on a thread of the disk. Whatever ends in the middle, each block is as its
// CRC says: as it was before, or as it was to become.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "examples/volume/block.h"
#include "examples/volume/checksums.h"
#include "examples/volume/disk.h"
#include "examples/volume/file.h"
#include "examples/volume/range_locks.h"
#include "examples/volume/volume.pb.h"
#include "rpc/task.h"

namespace verbena::volume {

struct StoredOptions {
  bool direct = true;                         // O_DIRECT where the file system has it
  bool read_only = false;                     // besides files that nobody may write
  uint64_t boot = 0;                          // names this run of the machine
  absl::Time lock_by = absl::InfinitePast();  // until then another server may go
};

class StoredVolume {
 public:
  // Makes the file (of zeros) and its checksums; they are durable, names and all. AlreadyExists.
  static absl::Status Create(const std::string& folder, const std::string& name, uint64_t bytes);
  // Of a file without checksums they are made; after an unclean end they are put right first.
  static absl::StatusOr<std::unique_ptr<StoredVolume>> Open(const std::string& folder,
                                                            const std::string& name, Disk& disk,
                                                            const StoredOptions& options);

  uint64_t id() const { return id_; }
  const std::string& name() const { return name_; }
  Info info() const;
  const std::vector<std::string>& notes() const { return notes_; }  // what Open had to do

  // `into` and the CRCs are as they stand on the disk: the caller's to compare.
  rpc::Task<absl::Status> Read(uint64_t offset, std::span<std::byte> into,
                               std::vector<uint32_t>* crcs);
  // `from` was checked. Aborted: a later try of this writer's has come.
  rpc::Task<absl::Status> Write(uint64_t offset, std::span<const std::byte> from,
                                std::span<const uint32_t> crcs, Try attempt);
  rpc::Task<absl::Status> Trim(uint64_t offset, uint64_t bytes, Try attempt);
  rpc::Task<absl::Status> Flush();
  // These two block a worker's thread.
  rpc::Task<absl::Status> Resize(uint64_t bytes, Workers& workers);
  rpc::Task<absl::Status> Remove(Workers& workers);

 private:
  StoredVolume(std::string folder, std::string name, Disk& disk)
      : folder_(std::move(folder)), name_(std::move(name)), disk_(disk) {}
  absl::Status OpenData(const StoredOptions& options);
  void OpenDirect();
  absl::Status OpenSums(const StoredOptions& options);
  absl::Status MakeSums(uint64_t bytes);
  absl::Status EndInterruptedResize(uint64_t bytes);
  absl::Status Recover(uint64_t boot);
  absl::StatusOr<uint32_t> CrcOnDisk(uint64_t block) const;

  absl::Status Writable() const;
  absl::Status Standing(uint64_t offset, uint64_t bytes) const;
  void NoteTry(const Try& attempt);
  absl::Status Current(const Try& attempt) const;
  rpc::Task<absl::Status> MarkRegions(uint64_t first, uint64_t count);
  rpc::Task<absl::Status> MoveAll(DiskOperation::Kind kind, uint64_t offset,
                                  std::span<std::byte> bytes);
  rpc::Task<absl::Status> Zero(uint64_t offset, uint64_t bytes);
  rpc::Task<absl::Status> LookAtFailed(uint64_t first, uint64_t count);
  absl::Status ResizeNow(uint64_t bytes);
  absl::Status RemoveNow();

  std::string data_path() const { return folder_ + "/" + name_; }
  std::string sums_path() const { return folder_ + "/." + name_ + ".crc32c"; }

  const std::string folder_;
  const std::string name_;
  Disk& disk_;
  File data_;
  bool direct_ = false;
  bool writable_ = false;
  uint64_t id_ = 0;
  std::unique_ptr<Checksums> sums_;
  std::vector<std::string> notes_;

  std::atomic<uint64_t> bytes_ = 0;
  std::atomic<bool> removed_ = false;
  RangeLocks blocks_;

  mutable std::mutex lock_;
  absl::Status broken_;  // a flush failed: what the kernel threw away then is not told again
  absl::flat_hash_map<uint64_t, uint64_t> tries_;  // by writer; of those that tried again
};

}  // namespace verbena::volume
