// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/range_locks.h"

#include <vector>

#include "examples/volume/go_on.h"

namespace verbena::volume {

// Nobody who came before is in its way, be it that he has it or that he waits for it.
bool RangeLocks::FreeLocked(Place place) const {
  for (auto other = ranges_.begin(); other != std::list<Range>::const_iterator(place); ++other) {
    const bool overlap = other->first < place->end && place->first < other->end;
    if (overlap && (other->alone || place->alone)) return false;
  }
  return true;
}

RangeLocks::Taking RangeLocks::Take(uint64_t first, uint64_t end, bool alone) {
  const std::lock_guard guard(lock_);
  const Place place =
      ranges_.insert(ranges_.end(), Range{.first = first, .end = end, .alone = alone});
  place->held = FreeLocked(place);
  return Taking(*this, place);
}

bool RangeLocks::Held(Place place, rpc::Suspension& suspension) {
  const std::lock_guard guard(lock_);
  if (!place->held) place->waits = &suspension;
  return place->held;
}

void RangeLocks::Release(Place place) {
  std::vector<rpc::Suspension*> next;
  {
    const std::lock_guard guard(lock_);
    for (auto later = ranges_.erase(place); later != ranges_.end(); ++later) {
      if (later->held || !FreeLocked(later)) continue;
      later->held = true;
      if (later->waits != nullptr) next.push_back(later->waits);
    }
  }
  for (rpc::Suspension* waiter : next) GoOn(*waiter);
}

}  // namespace verbena::volume
