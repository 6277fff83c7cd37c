// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/copy.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace verbena::volume {
namespace {

constexpr uint64_t kPiece = 1 << 20;
constexpr int kAtOnce = 8;

uint64_t RoundUp(uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

absl::Status FirstFailure(const std::vector<absl::Status>& ends) {
  for (const absl::Status& end : ends) {
    if (!end.ok()) return end;
  }
  return absl::OkStatus();
}

}  // namespace

// One batch is on its way while the next is not read yet: a source of files is faster than the
// wire.
absl::StatusOr<uint64_t> CopyIn(ReadBytes read, Volume& volume, uint64_t offset) {
  std::vector<std::byte> memory(kPiece * kAtOnce);
  uint64_t total = 0;
  for (bool more = true; more;) {
    const auto got = read(memory);
    if (!got.ok()) return got.status();
    more = *got == memory.size();
    const uint64_t bytes = RoundUp(*got);
    if (offset > volume.info().bytes() || bytes > volume.info().bytes() - offset) {
      return absl::OutOfRangeError(absl::StrCat(volume.info().name(), " has ",
                                                volume.info().bytes(),
                                                " bytes, and there is more to copy"));
    }
    std::fill(memory.begin() + static_cast<ptrdiff_t>(*got),
              memory.begin() + static_cast<ptrdiff_t>(bytes), std::byte{0});
    std::vector<rpc::Task<absl::Status>> pieces;
    for (uint64_t at = 0; at < bytes; at += kPiece) {
      const auto piece = std::span(memory).subspan(at, std::min(kPiece, bytes - at));
      pieces.push_back(volume.CoWrite(offset + at, piece));
    }
    const auto status = FirstFailure(rpc::WaitForAll(std::move(pieces)));
    if (!status.ok()) return status;
    offset += bytes;
    total += *got;
  }
  return total;
}

absl::Status CopyOut(Volume& volume, uint64_t offset, uint64_t bytes, WriteBytes write) {
  std::vector<std::byte> memory(kPiece * kAtOnce);
  while (bytes > 0) {
    const uint64_t batch = std::min<uint64_t>(bytes, memory.size());
    std::vector<rpc::Task<absl::Status>> pieces;
    for (uint64_t at = 0; at < batch; at += kPiece) {
      const auto piece = std::span(memory).subspan(at, std::min(kPiece, batch - at));
      pieces.push_back(volume.CoRead(offset + at, piece));
    }
    auto status = FirstFailure(rpc::WaitForAll(std::move(pieces)));
    if (status.ok()) status = write(std::span(memory).first(batch));
    if (!status.ok()) return status;
    offset += batch;
    bytes -= batch;
  }
  return absl::OkStatus();
}

}  // namespace verbena::volume
