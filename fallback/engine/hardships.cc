// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/hardships.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

absl::StatusOr<Hardships> ParseHardships(absl::string_view text) {
  Hardships h;
  for (absl::string_view name : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    if (name == "all") {
      h = {.late_answers = true, .poison = true, .device_atomics = true};
    } else if (name == "late_answers") {
      h.late_answers = true;
    } else if (name == "poison") {
      h.poison = true;
    } else if (name == "device_atomics") {
      h.device_atomics = true;
    } else {
      return absl::InvalidArgumentError(absl::StrCat(
          "VERBENA_HARSH: no mode \"", name,
          "\"; there are late_answers, poison and device_atomics, with commas, or all"));
    }
  }
  return h;
}

// Bytes [from, from + n) of a request's memory. What may vanish is spared: this is a debug mode.
void QueuePair::Poison(const Sge* sges, uint32_t count, uint32_t domain, uint32_t from,
                       uint32_t n) {
  for (const Sge* sge = sges; sge != sges + count && n > 0; ++sge) {
    if (from >= sge->length) {
      from -= sge->length;
      continue;
    }
    const uint32_t part = std::min(sge->length - from, n);
    const Translation t = config_.keys->Check(
        {sge->key, domain, config_.number, Access::kLocalWrite, sge->address + from, part});
    if (t.ok() && !t.region->guarded) std::memset(t.host, kPoison, part);
    n -= part;
    from = 0;
  }
}

// Reads, waits a little and writes, as a device does over its bus.
uint64_t QueuePair::OperateAsDevice(std::atomic_ref<uint64_t> target, bool add, uint64_t operand,
                                    uint64_t compare) {
  constexpr int kWhile = 200;  // pauses, some microseconds: long enough to be met
  std::lock_guard lock(config_.keys->atomics);
  const uint64_t original = target.load();
  for (int i = 0; i < kWhile; ++i) CpuRelax();
  if (add) {
    target.store(original + operand);
  } else if (original == compare) {
    target.store(operand);
  }
  return original;
}

}  // namespace verbena::engine
