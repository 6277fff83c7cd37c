// SPDX-License-Identifier: Apache-2.0
// What the command moves: runs of blocks between a volume and memory, several at once.
#pragma once

#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "examples/volume/client.h"

namespace verbena::volume {

// From whatever `read` reads, in order: fewer bytes than asked for are the end, and filled up with
// zeros to a whole block.
using ReadBytes = absl::FunctionRef<absl::StatusOr<size_t>(std::span<std::byte>)>;
using WriteBytes = absl::FunctionRef<absl::Status(std::span<const std::byte>)>;

// How many bytes came. OutOfRange: more than the volume has room for behind `offset`.
absl::StatusOr<uint64_t> CopyIn(ReadBytes read, Volume& volume, uint64_t offset);
absl::Status CopyOut(Volume& volume, uint64_t offset, uint64_t bytes, WriteBytes write);

}  // namespace verbena::volume
