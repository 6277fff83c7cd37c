// SPDX-License-Identifier: Apache-2.0
// What callers do to a volume. How it is opened: stored_volume_open.cc.
#include "examples/volume/stored_volume.h"

#include <algorithm>
#include <cerrno>
#include <limits>

#include "absl/strings/str_cat.h"
#include "examples/volume/buffers.h"

namespace verbena::volume {
namespace {

constexpr size_t kMostWriters = 1 << 16;  // whose tries are remembered
constexpr uint64_t kAll = std::numeric_limits<uint64_t>::max();

}  // namespace

Info StoredVolume::info() const {
  Info info;
  info.set_name(name_);
  info.set_id(id_);
  info.set_bytes(bytes_.load());
  info.set_writable(writable_);
  info.set_direct(direct_);
  info.set_disk(disk_.name());
  return info;
}

absl::Status StoredVolume::Writable() const {
  if (!writable_) return absl::PermissionDeniedError(absl::StrCat(name_, " is read-only"));
  const std::lock_guard guard(lock_);
  return broken_;
}

// To be asked when the blocks are locked: it may have been made smaller, or removed, meanwhile.
absl::Status StoredVolume::Standing(uint64_t offset, uint64_t bytes) const {
  if (removed_.load()) return absl::NotFoundError(absl::StrCat(name_, " has been removed"));
  return CheckRange(offset, bytes, bytes_.load(), kMostTrim);
}

void StoredVolume::NoteTry(const Try& attempt) {
  if (attempt.number() == 0) return;
  const std::lock_guard guard(lock_);
  if (tries_.size() >= kMostWriters) tries_.erase(tries_.begin());
  uint64_t& last = tries_[attempt.writer()];
  last = std::max(last, attempt.number());
}

absl::Status StoredVolume::Current(const Try& attempt) const {
  const std::lock_guard guard(lock_);
  const auto last = tries_.find(attempt.writer());
  if (last == tries_.end() || last->second <= attempt.number()) return absl::OkStatus();
  return absl::AbortedError("the writer has tried again since");
}

rpc::Task<absl::Status> StoredVolume::MoveAll(DiskOperation::Kind kind, uint64_t offset,
                                              std::span<std::byte> bytes) {
  const bool reads = kind == DiskOperation::Kind::kRead;
  while (!bytes.empty()) {
    int moved = 0;
    if (reads) {
      moved = co_await disk_.Read(data_.fd(), offset, bytes);
    } else {
      moved = co_await disk_.Write(data_.fd(), offset, bytes);
    }
    if (moved == -EINTR || moved == -EAGAIN) continue;
    if (moved < 0) co_return DiskError(moved, absl::StrCat(reads ? "read " : "write ", name_));
    if (moved == 0) {
      co_return absl::DataLossError(absl::StrCat(name_, ": its file ends at byte ", offset));
    }
    offset += static_cast<uint64_t>(moved);
    bytes = bytes.subspan(static_cast<size_t>(moved));
  }
  co_return absl::OkStatus();
}

rpc::Task<absl::Status> StoredVolume::Read(uint64_t offset, std::span<std::byte> into,
                                           std::vector<uint32_t>* crcs) {
  const uint64_t first = offset / kBlock;
  const uint64_t count = into.size() / kBlock;
  const RangeLocks::Hold hold = co_await blocks_.Share(first, first + count);
  absl::Status status = Standing(offset, into.size());
  if (status.ok()) status = co_await MoveAll(DiskOperation::Kind::kRead, offset, into);
  if (status.ok()) *crcs = sums_->Get(first, count);
  co_return status;
}

// The regions' marks are on the disk before a block of them is written.
rpc::Task<absl::Status> StoredVolume::MarkRegions(uint64_t first, uint64_t count) {
  if (sums_->BeginWrite(first, count)) co_return absl::OkStatus();
  const int synced = co_await disk_.Sync(sums_->fd());
  if (synced < 0) co_return DiskError(synced, absl::StrCat("sync checksums of ", name_));
  sums_->Marked(first, count);
  co_return absl::OkStatus();
}

rpc::Task<absl::Status> StoredVolume::Write(uint64_t offset, std::span<const std::byte> from,
                                            std::span<const uint32_t> crcs, Try attempt) {
  absl::Status status = Writable();
  if (!status.ok()) co_return status;
  NoteTry(attempt);
  const uint64_t first = offset / kBlock;
  const RangeLocks::Hold hold = co_await blocks_.HaveAlone(first, first + crcs.size());
  if (status = Standing(offset, from.size()); !status.ok()) co_return status;
  if (status = Current(attempt); !status.ok()) co_return status;
  status = co_await MarkRegions(first, crcs.size());
  if (status.ok()) {
    sums_->Store(first, crcs);
    auto* source = const_cast<std::byte*>(from.data());  // a write only reads it
    status = co_await MoveAll(DiskOperation::Kind::kWrite, offset, {source, from.size()});
    if (status.ok()) {
      sums_->Settle(first, crcs.size());
    } else {
      const absl::Status looked = co_await LookAtFailed(first, crcs.size());
      if (!looked.ok())
        status =
            absl::Status(status.code(), absl::StrCat(status.message(), "; ", looked.message()));
    }
  }
  sums_->EndWrite(first, crcs.size());
  co_return status;
}

// After a write that failed: each block is as before, or as it was to become, or lost.
rpc::Task<absl::Status> StoredVolume::LookAtFailed(uint64_t first, uint64_t count) {
  const BlockMemory memory = AllocateBlocks(kBlock);
  uint64_t lost = 0;
  for (uint64_t block = first; block < first + count; ++block) {
    const std::span<std::byte> bytes(memory.get(), kBlock);
    const absl::Status read = co_await MoveAll(DiskOperation::Kind::kRead, block * kBlock, bytes);
    if (!read.ok() || !sums_->Resolve(block, BlockCrc(memory.get()))) ++lost;
  }
  if (lost == 0) co_return absl::OkStatus();
  co_return absl::DataLossError(absl::StrCat(lost, " blocks are neither as before nor as written"));
}

rpc::Task<absl::Status> StoredVolume::Zero(uint64_t offset, uint64_t bytes) {
  const int punched = co_await disk_.Punch(data_.fd(), offset, bytes);
  if (punched != -EOPNOTSUPP) {
    if (punched < 0) co_return DiskError(punched, absl::StrCat("trim ", name_));
    co_return absl::OkStatus();
  }
  // A file system without holes.
  const uint64_t piece = std::min(bytes, kMostBytes);
  const BlockMemory zeros = AllocateBlocks(piece);
  std::fill_n(zeros.get(), piece, std::byte{0});
  for (uint64_t done = 0; done < bytes; done += piece) {
    const std::span<std::byte> now(zeros.get(), std::min(piece, bytes - done));
    const absl::Status status = co_await MoveAll(DiskOperation::Kind::kWrite, offset + done, now);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

rpc::Task<absl::Status> StoredVolume::Trim(uint64_t offset, uint64_t bytes, Try attempt) {
  absl::Status status = Writable();
  if (!status.ok()) co_return status;
  NoteTry(attempt);
  const uint64_t first = offset / kBlock;
  const uint64_t count = bytes / kBlock;
  const RangeLocks::Hold hold = co_await blocks_.HaveAlone(first, first + count);
  if (status = Standing(offset, bytes); !status.ok()) co_return status;
  if (status = Current(attempt); !status.ok()) co_return status;
  status = co_await MarkRegions(first, count);
  if (status.ok()) {
    sums_->StoreZeros(first, count);
    status = co_await Zero(offset, bytes);
    if (status.ok()) {
      sums_->Settle(first, count);
    } else {
      (void)co_await LookAtFailed(first, count);
    }
  }
  sums_->EndWrite(first, count);
  co_return status;
}

rpc::Task<absl::Status> StoredVolume::Flush() {
  if (removed_.load()) co_return absl::NotFoundError(absl::StrCat(name_, " has been removed"));
  if (!writable_) co_return absl::OkStatus();
  absl::Status status = Writable();
  if (!status.ok()) co_return status;
  const uint64_t flush = sums_->BeginFlush();
  int synced = co_await disk_.Sync(data_.fd());
  if (synced == 0) synced = co_await disk_.Sync(sums_->fd());
  if (synced == 0) {
    sums_->EndFlush(flush);
    co_return absl::OkStatus();
  }
  status = DiskError(synced, absl::StrCat("flush ", name_, "; it is not written any more"));
  const std::lock_guard guard(lock_);
  broken_ = status;
  co_return status;
}

rpc::Task<absl::Status> StoredVolume::Resize(uint64_t bytes, Workers& workers) {
  absl::Status status = Writable();
  if (!status.ok()) co_return status;
  const RangeLocks::Hold hold = co_await blocks_.HaveAlone(0, kAll);
  if (removed_.load()) co_return absl::NotFoundError(absl::StrCat(name_, " has been removed"));
  status = co_await workers.Run([this, bytes] { return ResizeNow(bytes); });
  co_return status;
}

rpc::Task<absl::Status> StoredVolume::Remove(Workers& workers) {
  absl::Status status = Writable();
  if (!status.ok()) co_return status;
  const RangeLocks::Hold hold = co_await blocks_.HaveAlone(0, kAll);
  if (removed_.exchange(true)) {
    co_return absl::NotFoundError(absl::StrCat(name_, " has been removed"));
  }
  status = co_await workers.Run([this] { return RemoveNow(); });
  co_return status;
}

}  // namespace verbena::volume
