// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/extension.h"

#include <algorithm>
#include <bit>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena::wire {
namespace {

std::optional<Record> Parse(std::span<const std::byte> bytes, uint8_t role) {
  const auto raw = Load<RecordBytes>(bytes.data());
  if (raw.magic != kRecordMagic || raw.version != kRecordVersion || raw.role != role ||
      raw.length != sizeof(RecordBytes)) {
    return std::nullopt;
  }
  return Record{raw.role, raw.fpdu_kib, raw.features, raw.required};
}

// An error if `has` lacks a bit that the other end requires.
absl::Status Check(uint32_t required, uint32_t has, const char* needs, const char* lacks) {
  const uint32_t missing = required & ~has;
  if (missing == 0) return absl::OkStatus();
  const int bit = std::countr_zero(missing);
  return absl::UnimplementedError(absl::StrCat("feature bit ", bit, " (", FeatureName(1u << bit),
                                               ") is required by ", needs, " and missing in ",
                                               lacks, "; run the same version on both ends"));
}

}  // namespace

const char* FeatureName(uint32_t bit) {
  switch (bit) {
    case kAcknowledge:
      return "acknowledge";
    case kRnr:
      return "rnr";
    case kImmediate:
      return "immediate";
    case kAtomics:
      return "atomics";
    case kLargeFpdu:
      return "large_fpdu";
    case kRendezvous:
      return "rendezvous";
    case kNote:
      return "note";
    case kOutOfBand:
      return "out_of_band";
    case kUnreliable:
      return "unreliable";
    default:
      return "unknown";
  }
}

size_t AppendRecord(const Record& record, std::span<std::byte> out) {
  if (out.size() < sizeof(RecordBytes)) return 0;
  RecordBytes raw;
  raw.magic = kRecordMagic;
  raw.version = kRecordVersion;
  raw.role = record.role;
  raw.length = sizeof(RecordBytes);
  raw.fpdu_kib = record.fpdu_kib;
  raw.features = record.features;
  raw.required = record.required;
  Store(out.data(), raw);
  return sizeof(RecordBytes);
}

std::optional<FoundRecord> FindRecord(std::span<const std::byte> private_data, uint8_t role) {
  // The record itself may end in zero bytes, so each end that leaves only zeros behind is tried,
  // the last one first. The magic has no zero byte: the loop ends there at the latest.
  for (size_t end = private_data.size(); end >= sizeof(RecordBytes); --end) {
    const size_t begin = end - sizeof(RecordBytes);
    if (const auto record = Parse(private_data.subspan(begin), role)) {
      return FoundRecord{*record, private_data.first(begin)};
    }
    if (private_data[end - 1] != std::byte{0}) break;
  }
  return std::nullopt;
}

absl::StatusOr<Negotiated> Negotiate(const Record& mine, const Record& theirs) {
  absl::Status status = Check(theirs.required, mine.features, "the peer", "this end");
  if (status.ok()) status = Check(mine.required, theirs.features, "this end", "the peer");
  if (!status.ok()) return status;

  Negotiated result;
  result.features = mine.features & theirs.features;
  // RnrNak names requests by the number that acknowledgements count.
  if (!result.has(kAcknowledge)) result.features &= ~kRnr;
  const uint8_t kib = std::min({mine.fpdu_kib, theirs.fpdu_kib, kMaxFpduKib});
  if (kib == 0) result.features &= ~kLargeFpdu;
  if (result.has(kLargeFpdu)) result.max_payload = uint32_t{kib} * 1024;
  return result;
}

}  // namespace verbena::wire
