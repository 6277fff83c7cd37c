// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/operations.h"

#include "absl/strings/str_cat.h"

namespace ml {

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
  return absl::FailedPreconditionError(absl::StrCat(
      "rank ", peer, " does something else than rank ", circle_.rank,
      ": all ranks call the same operations, in one order, with the same kinds and lengths"));
}

}  // namespace ml
