// SPDX-License-Identifier: Apache-2.0
// A volume that is made, opened, put right after an unclean end, made longer or shorter, removed.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "examples/volume/buffers.h"
#include "examples/volume/stored_volume.h"

namespace verbena::volume {
namespace {

uint64_t NewId() {
  absl::BitGen random;
  return absl::Uniform<uint64_t>(absl::IntervalClosed, random, 1, ~uint64_t{0});
}

absl::Status CheckSize(const std::string& name, uint64_t bytes) {
  if (bytes > 0 && bytes % kBlock == 0 && bytes <= kMostVolume) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": ", bytes, " bytes; a volume has a multiple of 4096, at most 16 TiB"));
}

absl::Status Rename(const std::string& from, const std::string& to, unsigned flags) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0) return absl::OkStatus();
  return Failed(absl::StrCat("rename ", from, " to ", to));
}

}  // namespace

absl::Status StoredVolume::Create(const std::string& folder, const std::string& name,
                                  uint64_t bytes) {
  if (auto status = CheckSize(name, bytes); !status.ok()) return status;
  const std::string data = folder + "/" + name;
  const std::string sums = folder + "/." + name + ".crc32c";
  const std::string draft = folder + "/." + name + ".new";
  if (access(data.c_str(), F_OK) == 0) {
    return absl::AlreadyExistsError(absl::StrCat("there is a volume ", name));
  }
  // Checksums without a file are what an end between these steps leaves, and are made anew.
  absl::Status status = Checksums::Create(sums, NewId(), bytes);
  if (status.ok()) {
    auto file = OpenFile(draft, O_RDWR | O_CREAT | O_TRUNC);
    status = file.status();
    if (file.ok() &&
        (ftruncate(file->fd(), static_cast<off_t>(bytes)) != 0 || fsync(file->fd()) != 0)) {
      status = Failed(absl::StrCat("make ", draft));
    }
  }
  if (status.ok()) status = Rename(draft, data, RENAME_NOREPLACE);
  if (!status.ok()) {
    (void)unlink(draft.c_str());
    (void)unlink(sums.c_str());
    return status;
  }
  return SyncFolder(folder);
}

absl::StatusOr<std::unique_ptr<StoredVolume>> StoredVolume::Open(const std::string& folder,
                                                                 const std::string& name,
                                                                 Disk& disk,
                                                                 const StoredOptions& options) {
  auto volume = std::unique_ptr<StoredVolume>(new StoredVolume(folder, name, disk));
  absl::Status status = volume->OpenData(options);
  if (status.ok()) status = volume->OpenSums(options);
  if (!status.ok()) return status;
  return volume;
}

absl::Status StoredVolume::OpenData(const StoredOptions& options) {
  struct stat now = {};
  if (stat(data_path().c_str(), &now) != 0) return Failed(absl::StrCat("stat ", data_path()));
  if (!S_ISREG(now.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(name_, " is not a regular file"));
  }
  // Root may write what nobody may; that is not what its owner meant.
  writable_ = !options.read_only && (now.st_mode & 0222) != 0;
  auto file = OpenFile(data_path(), writable_ ? O_RDWR : O_RDONLY);
  if (!file.ok() && writable_ && absl::IsPermissionDenied(file.status())) {
    writable_ = false;
    file = OpenFile(data_path(), O_RDONLY);
  }
  if (!file.ok()) return file.status();
  data_ = *std::move(file);
  if (options.direct) OpenDirect();
  // What another server still writes must not come after what Recover() finds.
  if (!writable_) return absl::OkStatus();
  return LockFile(data_, data_path(), options.lock_by);
}

void StoredVolume::OpenDirect() {
  auto direct = OpenFile(data_path(), (writable_ ? O_RDWR : O_RDONLY) | O_DIRECT);
  const BlockMemory memory = AllocateBlocks(kBlock);
  // Some say only here that they cannot.
  direct_ = direct.ok() && pread(direct->fd(), memory.get(), kBlock, 0) >= 0;
  if (direct_) {
    data_ = *std::move(direct);
  } else {
    notes_.push_back("its file system has no O_DIRECT: through the page cache");
  }
}

absl::Status StoredVolume::OpenSums(const StoredOptions& options) {
  struct stat now = {};
  if (fstat(data_.fd(), &now) != 0) return Failed(absl::StrCat("stat ", data_path()));
  const auto bytes = static_cast<uint64_t>(now.st_size);
  if (auto status = CheckSize(name_, bytes); !status.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(status.message(), "; `truncate -s %4096 ", data_path(), "` makes it one"));
  }
  if (access(sums_path().c_str(), F_OK) != 0) {
    if (auto status = MakeSums(bytes); !status.ok()) return status;
  }
  auto sums = Checksums::Open(sums_path(), options.lock_by);
  if (!sums.ok()) return sums.status();
  sums_ = *std::move(sums);
  if (auto status = EndInterruptedResize(bytes); !status.ok()) return status;
  bytes_.store(bytes);
  id_ = sums_->id();
  return Recover(options.boot);
}

// Of a file that was no volume yet. Blocks are taken for what they are.
absl::Status StoredVolume::MakeSums(uint64_t bytes) {
  const std::string draft = sums_path() + ".new";
  if (auto status = Checksums::Create(draft, NewId(), bytes); !status.ok()) return status;
  auto sums = Checksums::Open(draft, absl::InfinitePast());
  if (!sums.ok()) return sums.status();
  const BlockMemory memory = AllocateBlocks(kMostBytes);
  for (uint64_t at = 0; at < bytes;) {
    const ssize_t read = pread(data_.fd(), memory.get(), kMostBytes, static_cast<off_t>(at));
    if (read < static_cast<ssize_t>(kBlock)) return Failed(absl::StrCat("read ", data_path()));
    const uint64_t blocks = static_cast<uint64_t>(read) / kBlock;
    for (uint64_t i = 0; i < blocks; ++i) {
      (*sums)->Accept(at / kBlock + i, BlockCrc(memory.get() + i * kBlock));
    }
    at += blocks * kBlock;
  }
  if (fsync((*sums)->fd()) != 0) return Failed(absl::StrCat("fsync ", draft));
  if (auto status = Rename(draft, sums_path(), 0); !status.ok()) return status;
  notes_.push_back("it had no checksums: they were made from what is there");
  return SyncFolder(folder_);
}

absl::Status StoredVolume::EndInterruptedResize(uint64_t bytes) {
  if (bytes == sums_->bytes() && bytes == sums_->bytes_to_be()) return absl::OkStatus();
  if (bytes == sums_->bytes_to_be()) {
    notes_.push_back(absl::StrCat("its change to ", bytes, " bytes was brought to its end"));
    return sums_->EndResize();
  }
  if (bytes == sums_->bytes()) return sums_->BeginResize(bytes);  // and no further
  return absl::FailedPreconditionError(
      absl::StrCat(data_path(), " has ", bytes, " bytes and checksums of ", sums_->bytes(),
                   "; if it is right as it is, remove ", sums_path()));
}

absl::StatusOr<uint32_t> StoredVolume::CrcOnDisk(uint64_t block) const {
  const BlockMemory memory = AllocateBlocks(kBlock);
  const auto at = static_cast<off_t>(block * kBlock);
  if (pread(data_.fd(), memory.get(), kBlock, at) != static_cast<ssize_t>(kBlock)) {
    return Failed(absl::StrCat("read ", data_path(), " at ", at));
  }
  return BlockCrc(memory.get());
}

absl::Status StoredVolume::Recover(uint64_t boot) {
  const bool machine_went_down = sums_->boot() != 0 && sums_->boot() != boot;
  uint64_t looked = 0, lost = 0, taken = 0;
  const absl::Status status =
      sums_->ForEachUnsettled(machine_went_down, [&](uint64_t block) -> absl::Status {
        const auto found = CrcOnDisk(block);
        if (!found.ok()) return found.status();
        ++looked;
        if (sums_->Resolve(block, *found)) return absl::OkStatus();
        if (machine_went_down) {
          sums_->Accept(block, *found);
          ++taken;
        } else {
          ++lost;
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (looked > 0) {
    notes_.push_back(absl::StrCat("after an unclean end: looked at ", looked, " blocks, ", taken,
                                  " not flushed and taken for what they are, ", lost,
                                  " neither as before nor as written"));
  }
  // What is settled now has to be on the disk before a mark goes.
  sums_->SetBoot(boot);
  if (fdatasync(data_.fd()) != 0 || fdatasync(sums_->fd()) != 0) {
    return Failed(absl::StrCat("sync ", data_path()));
  }
  if (lost == 0) sums_->ClearMarks();
  return absl::OkStatus();
}

absl::Status StoredVolume::ResizeNow(uint64_t bytes) {
  if (auto status = CheckSize(name_, bytes); !status.ok()) return status;
  const uint64_t before = bytes_.load();
  if (bytes == before) return absl::OkStatus();
  if (auto status = sums_->BeginResize(bytes); !status.ok()) return status;
  if (ftruncate(data_.fd(), static_cast<off_t>(bytes)) != 0) {
    const absl::Status status = Failed(absl::StrCat("resize ", name_));
    (void)sums_->BeginResize(before);
    return status;
  }
  bytes_.store(bytes);
  if (fsync(data_.fd()) != 0) return Failed(absl::StrCat("fsync ", data_path()));
  return sums_->EndResize();
}

absl::Status StoredVolume::RemoveNow() {
  if (unlink(data_path().c_str()) != 0 || unlink(sums_path().c_str()) != 0) {
    return Failed(absl::StrCat("remove ", name_));
  }
  return SyncFolder(folder_);
}

}  // namespace verbena::volume
