// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/operations.h"

#include "absl/strings/str_cat.h"

namespace ml {
namespace {

absl::Status Disagrees(int peer, int rank) {
  return absl::FailedPreconditionError(absl::StrCat(
      "rank ", peer, " does something else than rank ", rank,
      ": all ranks call the same operations, in one order, with the same kinds and lengths"));
}

}  // namespace

absl::StatusOr<const Arrival*> Operation::Expect(int peer, Kind kind, size_t length) const {
  const Link& from = link(peer);
  const Arrival* arrival = from.Front();
  if (arrival == nullptr) {
    if (from.left()) return absl::UnavailableError(absl::StrCat("rank ", peer, " has left"));
    return nullptr;
  }
  if (arrival->kind == kind && arrival->operation == number_ && arrival->length == length) {
    return arrival;
  }
  return Disagrees(peer, circle_.rank);
}

absl::StatusOr<std::optional<verbena::RemoteBuffer>> Operation::ExpectWhere(int peer,
                                                                            size_t bytes) const {
  constexpr size_t kEncoded = 20;
  const auto arrival = Expect(peer, Kind::kWhere, kEncoded);
  if (!arrival.ok()) return arrival.status();
  if (*arrival == nullptr) return std::nullopt;
  const auto* text = reinterpret_cast<const char*>((*arrival)->slot.data());
  auto theirs = verbena::Decode(absl::string_view(text, kEncoded));
  if (!theirs.ok()) return theirs.status();
  if (theirs->length != bytes) return Disagrees(peer, circle_.rank);
  link(peer).Release();
  return *theirs;
}

}  // namespace ml
