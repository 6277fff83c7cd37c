// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/checksums.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "examples/volume/block.h"

namespace verbena::volume {
namespace {

constexpr char kMagic[8] = {'v', 'e', 'r', 'b', 'C', 'R', 'C', '1'};
constexpr uint64_t kMarksAt = 4096;       // a bit for each region
constexpr uint64_t kEntriesAt = 1 << 16;  // then 8 bytes for each block
constexpr uint64_t kBlocksARegion = kRegion / kBlock;
static_assert(kMarksAt + kMostVolume / kRegion / 8 <= kEntriesAt);
// Of the machine that it is on: files do not move between the two kinds.
static_assert(std::endian::native == std::endian::little);

uint64_t FileBytes(uint64_t bytes) { return kEntriesAt + bytes / kBlock * 8; }

absl::Status Reserve(int fd, const std::string& path, uint64_t bytes) {
  const int error = posix_fallocate(fd, 0, static_cast<off_t>(FileBytes(bytes)));
  if (error == 0) return absl::OkStatus();
  errno = error;
  return Failed(absl::StrCat("room for the checksums of ", bytes, " bytes in ", path));
}

}  // namespace

absl::Status Checksums::Create(const std::string& path, uint64_t id, uint64_t bytes) {
  auto file = OpenFile(path, O_RDWR | O_CREAT);
  if (!file.ok()) return file.status();
  if (auto status = LockFile(*file, path, absl::InfinitePast()); !status.ok()) return status;
  if (ftruncate(file->fd(), 0) != 0) return Failed(absl::StrCat("truncate ", path));
  if (auto status = Reserve(file->fd(), path, bytes); !status.ok()) return status;
  Header header = {
      .magic = {}, .block = kBlock, .id = id, .bytes = bytes, .bytes_to_be = bytes, .boot = 0};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  if (pwrite(file->fd(), &header, sizeof(header), 0) != sizeof(header) || fsync(file->fd()) != 0) {
    return Failed(absl::StrCat("write ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checksums>> Checksums::Open(const std::string& path,
                                                           absl::Time lock_by) {
  auto file = OpenFile(path, O_RDWR);
  if (!file.ok()) return file.status();
  if (auto status = LockFile(*file, path, lock_by); !status.ok()) return status;
  Header header = {};
  const bool read = pread(file->fd(), &header, sizeof(header), 0) == sizeof(header);
  struct stat now = {};
  if (fstat(file->fd(), &now) != 0) return Failed(absl::StrCat("stat ", path));
  if (!read || std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.block != kBlock ||
      header.bytes > kMostVolume || header.bytes_to_be > kMostVolume ||
      static_cast<uint64_t>(now.st_size) < FileBytes(header.bytes)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path,
                     " does not hold the checksums of a volume; if the volume is right without "
                     "them, remove it and they are made anew"));
  }
  auto sums = std::unique_ptr<Checksums>(new Checksums(*std::move(file)));
  if (auto status = sums->Map(static_cast<uint64_t>(now.st_size)); !status.ok()) return status;
  return sums;
}

Checksums::~Checksums() {
  if (map_ != nullptr) munmap(map_, mapped_);
}

absl::Status Checksums::Map(uint64_t bytes) {
  const std::lock_guard guard(lock_);  // a flush may be at the marks
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.fd(), 0);
  if (map == MAP_FAILED) return Failed("map checksums");
  if (map_ != nullptr) munmap(map_, mapped_);
  map_ = static_cast<std::byte*>(map);
  mapped_ = bytes;
  regions_.resize((header().bytes + kRegion - 1) / kRegion);
  return absl::OkStatus();
}

uint64_t* Checksums::entry(uint64_t block) const {
  return reinterpret_cast<uint64_t*>(map_ + kEntriesAt) + block;
}

Checksums::Entry Checksums::Load(uint64_t block) const {
  return std::bit_cast<Entry>(*entry(block));
}

// Whole or not at all, should the process be killed here.
void Checksums::Put(uint64_t block, Entry value) {
  std::atomic_ref(*entry(block)).store(std::bit_cast<uint64_t>(value), std::memory_order_release);
}

bool Checksums::marked(uint64_t region) const {
  return (map_[kMarksAt + region / 8] >> (region % 8) & std::byte{1}) != std::byte{0};
}

void Checksums::SetMark(uint64_t region, bool marked) {
  const std::byte bit = std::byte{1} << (region % 8);
  std::byte& bits = map_[kMarksAt + region / 8];
  bits = marked ? bits | bit : bits & ~bit;
}

std::vector<uint32_t> Checksums::Get(uint64_t first, uint64_t count) const {
  std::vector<uint32_t> crcs(count);
  for (uint64_t i = 0; i < count; ++i) crcs[i] = Load(first + i).after ^ kZeroCrc;
  return crcs;
}

bool Checksums::BeginWrite(uint64_t first, uint64_t count) {
  const std::lock_guard guard(lock_);
  bool durable = true;
  for (uint64_t i = first / kBlocksARegion; i <= (first + count - 1) / kBlocksARegion; ++i) {
    ++regions_[i].writers;
    if (regions_[i].durable) continue;
    SetMark(i, true);
    durable = false;
  }
  return durable;
}

void Checksums::Marked(uint64_t first, uint64_t count) {
  const std::lock_guard guard(lock_);
  for (uint64_t i = first / kBlocksARegion; i <= (first + count - 1) / kBlocksARegion; ++i) {
    regions_[i].durable = true;  // it has a writer, so no flush has cleared it since
  }
}

void Checksums::Store(uint64_t first, std::span<const uint32_t> after) {
  for (uint64_t i = 0; i < after.size(); ++i) {
    Put(first + i, {.before = Load(first + i).after, .after = after[i] ^ kZeroCrc});
  }
}

void Checksums::StoreZeros(uint64_t first, uint64_t count) {
  for (uint64_t i = first; i < first + count; ++i) Put(i, {.before = Load(i).after, .after = 0});
}

void Checksums::Settle(uint64_t first, uint64_t count) {
  for (uint64_t i = first; i < first + count; ++i) {
    const uint32_t now = Load(i).after;
    Put(i, {.before = now, .after = now});
  }
}

void Checksums::EndWrite(uint64_t first, uint64_t count) {
  const std::lock_guard guard(lock_);
  for (uint64_t i = first / kBlocksARegion; i <= (first + count - 1) / kBlocksARegion; ++i) {
    --regions_[i].writers;
    regions_[i].last_flush = flushes_;
  }
}

bool Checksums::Resolve(uint64_t block, uint32_t found) {
  const Entry now = Load(block);
  const uint32_t crc = found ^ kZeroCrc;
  if (crc != now.before && crc != now.after) return false;
  Put(block, {.before = crc, .after = crc});
  return true;
}

void Checksums::Accept(uint64_t block, uint32_t found) {
  Put(block, {.before = found ^ kZeroCrc, .after = found ^ kZeroCrc});
}

uint64_t Checksums::BeginFlush() {
  const std::lock_guard guard(lock_);
  return ++flushes_;
}

// A region keeps its mark until a whole flush has gone by without a write there: one that is
// written all the time need not be marked anew after each.
void Checksums::EndFlush(uint64_t flush) {
  const std::lock_guard guard(lock_);
  for (uint64_t i = 0; i < regions_.size(); ++i) {
    Region& region = regions_[i];
    if (!region.durable || region.writers > 0 || region.last_flush + 1 >= flush) continue;
    region.durable = false;
    SetMark(i, false);
  }
}

absl::Status Checksums::ForEachUnsettled(
    bool all, absl::FunctionRef<absl::Status(uint64_t block)> look) const {
  for (uint64_t region = 0; region < regions_.size(); ++region) {
    if (!marked(region)) continue;
    const uint64_t end = std::min((region + 1) * kBlocksARegion, bytes() / kBlock);
    for (uint64_t block = region * kBlocksARegion; block < end; ++block) {
      const Entry now = Load(block);
      if (!all && now.before == now.after) continue;
      if (auto status = look(block); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

void Checksums::ClearMarks() {
  const std::lock_guard guard(lock_);
  for (uint64_t i = 0; i < regions_.size(); ++i) SetMark(i, false);
}

absl::Status Checksums::BeginResize(uint64_t bytes) {
  if (FileBytes(bytes) > mapped_) {
    if (auto status = Reserve(file_.fd(), "its file", bytes); !status.ok()) return status;
    if (auto status = Map(FileBytes(bytes)); !status.ok()) return status;
  }
  header().bytes_to_be = bytes;
  if (fsync(file_.fd()) != 0) return Failed("fsync checksums");
  return absl::OkStatus();
}

absl::Status Checksums::EndResize() {
  Header& head = header();
  const uint64_t blocks = (mapped_ - kEntriesAt) / 8;
  for (uint64_t i = head.bytes_to_be / kBlock; i < blocks; ++i) Put(i, {.before = 0, .after = 0});
  head.bytes = head.bytes_to_be;
  {
    const std::lock_guard guard(lock_);
    regions_.resize((head.bytes + kRegion - 1) / kRegion);
  }
  if (fsync(file_.fd()) != 0) return Failed("fsync checksums");
  return absl::OkStatus();
}

}  // namespace verbena::volume
