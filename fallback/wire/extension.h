// SPDX-License-Identifier: Apache-2.0
//
// How two Verbena ends recognise each other: a 16-byte record at the end of the private data of the
// MPA Request and Reply (docs/decisions/0003-own-peer-record.md). Whoever has no record, or a
// record of another version, is a foreign iWARP peer.
//
//   magic 4 'Vrb1' | version 1 | role 1 | length 1 | FPDU KiB 1 | features 4 | required 4
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "fallback/wire/bytes.h"

namespace verbena::wire {

inline constexpr uint32_t kRecordMagic = 0x56726231;  // "Vrb1"
inline constexpr uint8_t kRecordVersion = 1;  // of the layout; new abilities are feature bits
// An MPA responder may copy what it was sent. A record in a Reply counts only with kRoleReply.
inline constexpr uint8_t kRoleRequest = 1;
inline constexpr uint8_t kRoleReply = 2;

// Private data left to the application, the same on every provider.
inline constexpr size_t kConnectPrivateData = 56;
inline constexpr size_t kAcceptPrivateData = 196;
inline constexpr size_t kRejectPrivateData = 148;

// Feature bits. If you add one: a name in FeatureName (extension.cc), a row in docs/wire.md, a test
// with a peer that lacks it.
inline constexpr uint32_t kAcknowledge = 1u << 0;  // control messages Ack, Nak, Bye
inline constexpr uint32_t kRnr = 1u << 1;          // RnrNak, Resume, Ready; needs kAcknowledge
inline constexpr uint32_t kImmediate = 1u << 2;    // kWithImmediate on Send and Write
inline constexpr uint32_t kAtomics = 1u << 3;      // RFC 7306 atomic operations
inline constexpr uint32_t kLargeFpdu = 1u << 4;    // FPDUs beyond the MSS, up to fpdu_kib
// A queue pair of type UC, of both ends or of neither: always required, and without kRnr and
// kAtomics.
inline constexpr uint32_t kUnreliable = 1u << 8;
// These say what a Request is, not what an end can do; nobody negotiates them.
inline constexpr uint32_t kRendezvous = 1u << 5;  // asks for a way over RDMA; only to be rejected
inline constexpr uint32_t kNote = 1u << 6;        // a note stands before the record
inline constexpr uint32_t kOutOfBand = 1u << 7;   // from a holder of the queue pair's address

// A note: text, then its length as one byte.
inline constexpr size_t kMaxNote = 160;

// 64 KiB would not fit: ULPDU_Length is 16 bits and counts the header.
inline constexpr uint8_t kMaxFpduKib = 60;

struct RecordBytes {
  Be32 magic;
  uint8_t version = 0;
  uint8_t role = 0;
  uint8_t length = 0;
  uint8_t fpdu_kib = 0;
  Be32 features;
  Be32 required;
};
static_assert(WireStruct<RecordBytes> && sizeof(RecordBytes) == 16);
static_assert(offsetof(RecordBytes, version) == 4 && offsetof(RecordBytes, role) == 5);
static_assert(offsetof(RecordBytes, length) == 6 && offsetof(RecordBytes, fpdu_kib) == 7);
static_assert(offsetof(RecordBytes, features) == 8 && offsetof(RecordBytes, required) == 12);

struct Record {
  uint8_t role = kRoleRequest;
  uint8_t fpdu_kib = kMaxFpduKib;  // largest FPDU payload that this end accepts, in KiB
  uint32_t features = 0;
  uint32_t required = 0;  // subset of features without which this end does not want to connect
  friend bool operator==(const Record&, const Record&) = default;
};

// Writes the record at `out`; 16, or 0 if it does not fit.
size_t AppendRecord(const Record& record, std::span<std::byte> out);

struct FoundRecord {
  Record record;
  std::span<const std::byte> application;  // the private data before the record
};

// The record at the very end of `private_data`, or before a tail of zero bytes: rdma_cm may deliver
// more than was sent. Only one with this role.
std::optional<FoundRecord> FindRecord(std::span<const std::byte> private_data, uint8_t role);

struct Negotiated {
  uint32_t features = 0;
  uint32_t max_payload = 0;  // of one FPDU, bytes; 0: stay within the MSS
  bool has(uint32_t feature) const { return (features & feature) == feature; }
  friend bool operator==(const Negotiated&, const Negotiated&) = default;
};

// The intersection, the same on both ends. An Unimplemented error names the bit that one end
// requires and the other lacks: reject, with that text as the reason.
absl::StatusOr<Negotiated> Negotiate(const Record& mine, const Record& theirs);

// "rnr", or "unknown" for a bit of a later version.
const char* FeatureName(uint32_t bit);

}  // namespace verbena::wire
