// SPDX-License-Identifier: Apache-2.0
// The CRC32C of each block of a volume, in a file beside it, so that a block and its CRC agree
// whatever happens in the middle of a write.
//
// The file is mapped. An entry has two CRCs, of before and after a write: both are stored before
// the block is written, and the new one twice when it was. A process that is killed leaves what it
// stored in the page cache; so after it every block is as one of its two CRCs says, and Unsettled()
// names those that have to be looked at.
//
// When the machine goes down, blocks and entries reach the disk or do not, each on its own. A bit
// for each region of 64 MiB is on the disk before the first write there, and is cleared by flushes:
// only in regions that have it, a block may be what neither CRC says, and only if it was written
// after the last flush. There it is taken for what it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "examples/volume/file.h"

namespace verbena::volume {

inline constexpr uint64_t kRegion = uint64_t{64} << 20;  // bytes of the volume

class Checksums {
 public:
  // For a volume of `bytes` that holds zeros; all of the file's room is taken at once, since a full
  // disk could not be told to who stores into a mapping. Replaces a file that is there. Durable but
  // for its name.
  static absl::Status Create(const std::string& path, uint64_t id, uint64_t bytes);
  // FailedPrecondition: it is not such a file, or another server has it open until then.
  static absl::StatusOr<std::unique_ptr<Checksums>> Open(const std::string& path,
                                                         absl::Time lock_by);
  ~Checksums();

  uint64_t id() const { return header().id; }
  uint64_t bytes() const { return header().bytes; }
  uint64_t bytes_to_be() const { return header().bytes_to_be; }  // of a resize that began
  int fd() const { return file_.fd(); }

  // Of blocks that nobody is writing.
  std::vector<uint32_t> Get(uint64_t first, uint64_t count) const;

  // Around a write of these blocks, which nobody else is writing. False: the marks of their regions
  // are not on the disk yet; sync the file, say so with Marked, and only then write.
  [[nodiscard]] bool BeginWrite(uint64_t first, uint64_t count);
  void Marked(uint64_t first, uint64_t count);
  void Store(uint64_t first, std::span<const uint32_t> after);
  void StoreZeros(uint64_t first, uint64_t count);
  void Settle(uint64_t first, uint64_t count);  // the write was done
  void EndWrite(uint64_t first, uint64_t count);

  // A block whose write did not end well; `found` is what is on the disk. False: neither CRC.
  bool Resolve(uint64_t block, uint32_t found);
  // … to be taken for what it is.
  void Accept(uint64_t block, uint32_t found);

  // Around the syncs of a flush.
  uint64_t BeginFlush();
  void EndFlush(uint64_t flush);

  // Calls `look` with each block that an unclean end left to be looked at, until it fails. `all`:
  // of marked regions that is every block, since the machine went down.
  absl::Status ForEachUnsettled(bool all,
                                absl::FunctionRef<absl::Status(uint64_t block)> look) const;
  uint64_t boot() const { return header().boot; }  // of the machine, when it was opened last
  void SetBoot(uint64_t boot) { header().boot = boot; }
  void ClearMarks();  // all that was marked is on the disk

  // In this order, with everybody else kept out: room for entries; the file becomes that long;
  // done.
  absl::Status BeginResize(uint64_t bytes);
  absl::Status EndResize();

 private:
  struct Header {
    char magic[8];
    uint64_t block;
    uint64_t id;
    uint64_t bytes;
    uint64_t bytes_to_be;
    uint64_t boot;
  };
  static_assert(sizeof(Header) == 48);
  struct Entry {  // xored with the CRC of zeros: a file of zeros stands for a volume of zeros
    uint32_t before, after;
  };
  static_assert(sizeof(Entry) == 8);
  struct Region {
    uint32_t writers = 0;
    uint64_t last_flush = 0;  // … that had begun when its last write ended
    bool durable = false;     // its mark
  };

  explicit Checksums(File file) : file_(std::move(file)) {}
  absl::Status Map(uint64_t bytes);
  Header& header() const { return *reinterpret_cast<Header*>(map_); }
  bool marked(uint64_t region) const;
  void SetMark(uint64_t region, bool marked);
  uint64_t* entry(uint64_t block) const;
  Entry Load(uint64_t block) const;
  void Put(uint64_t block, Entry entry);

  File file_;
  std::byte* map_ = nullptr;
  size_t mapped_ = 0;

  std::mutex lock_;  // regions and their marks
  std::vector<Region> regions_;
  uint64_t flushes_ = 0;
};

}  // namespace verbena::volume
