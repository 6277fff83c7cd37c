// SPDX-License-Identifier: Apache-2.0
//
// RDMAP: opcodes, which header each takes, the fixed bodies (RFC 5040 4, RFC 7306), and the check
// that every inbound header passes before its payload is placed. Stateless: sequence numbers, keys
// and what was negotiated (opcodes 8..B and F) are the engine's to check.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "fallback/wire/bytes.h"
#include "fallback/wire/ddp.h"
#include "fallback/wire/terminate.h"

namespace verbena::wire {

// RDMAP control byte, RFC 5040 4.1: version 2 bits | 2 reserved | opcode 4. Reserved bits are sent
// as zero and not checked when received, except between own peers, which have agreed on their use.
inline constexpr uint8_t kRdmapVersionMask = 0xc0;
inline constexpr uint8_t kRdmapVersion = 0x40;
inline constexpr uint8_t kOpcodeMask = 0x0f;
// docs/decisions/0004-control-messages.md. kAckRequest: acknowledge this request soon.
// kWithImmediate on a Send: `ulp` holds the immediate, in every segment. On a Write: an Immediate
// message follows and is part of the same request.
inline constexpr uint8_t kAckRequest = 0x20;
inline constexpr uint8_t kWithImmediate = 0x10;

// If you add one:
//  1. give it a row in kOpcodeRules, and its body a struct with asserted layout below;
//  2. name it in OpcodeName;
//  3. golden bytes, truncations and both header classes in rdmap_test.cc;
//  4. a feature bit in extension.h, unless every iWARP peer knows it;
//  5. decide whether a refused request (RNR) drops it, and whether it counts as a request;
//  6. describe it in docs/wire.md, with its bytes.
enum class Opcode : uint8_t {
  kWrite = 0x0,
  kReadRequest = 0x1,
  kReadResponse = 0x2,
  kSend = 0x3,
  kSendInvalidate = 0x4,
  kSendSolicited = 0x5,
  kSendSolicitedInvalidate = 0x6,
  kTerminate = 0x7,
  kImmediate = 0x8,  // RFC 7306 from here
  kImmediateSolicited = 0x9,
  kAtomicRequest = 0xa,
  kAtomicResponse = 0xb,
  kControl = 0xf,  // RFC 6580 3.4 leaves it to experiments; control.h
};

constexpr Opcode OpcodeOf(uint8_t rdmap) { return static_cast<Opcode>(rdmap & kOpcodeMask); }
constexpr uint8_t RdmapByte(Opcode op) { return kRdmapVersion | static_cast<uint8_t>(op); }
const char* OpcodeName(Opcode op);

struct ReadRequest {  // RFC 5040 4.4
  Be32 sink_stag;
  Be64 sink_offset;
  Be32 size;
  Be32 source_stag;
  Be64 source_offset;
};
static_assert(WireStruct<ReadRequest> && sizeof(ReadRequest) == 28);
static_assert(offsetof(ReadRequest, sink_offset) == 4 && offsetof(ReadRequest, size) == 12);
static_assert(offsetof(ReadRequest, source_stag) == 16);
static_assert(offsetof(ReadRequest, source_offset) == 20);

inline constexpr uint32_t kFetchAdd = 0;  // RFC 7306 5.2.1; 1 is reserved
inline constexpr uint32_t kCompareSwap = 2;
inline constexpr uint32_t kAtomicCodeMask = 0xf;

struct AtomicRequest {  // RFC 7306 5.2.1. Operands are numbers in the target's own byte order.
  Be32 operation;       // 28 reserved bits, 4 of code
  Be32 request_id;
  Be32 stag;
  Be64 tagged_offset;
  Be64 operand;  // to add, or to store
  Be64 operand_mask;
  Be64 compare;
  Be64 compare_mask;
};
static_assert(WireStruct<AtomicRequest> && sizeof(AtomicRequest) == 52);
static_assert(offsetof(AtomicRequest, request_id) == 4 && offsetof(AtomicRequest, stag) == 8);
static_assert(offsetof(AtomicRequest, tagged_offset) == 12);
static_assert(offsetof(AtomicRequest, operand) == 20 &&
              offsetof(AtomicRequest, operand_mask) == 28);
static_assert(offsetof(AtomicRequest, compare) == 36 &&
              offsetof(AtomicRequest, compare_mask) == 44);

// The two operations of verbs. A plain FetchAdd has no mask and compares nothing.
AtomicRequest MakeFetchAdd(uint32_t id, uint32_t stag, uint64_t offset, uint64_t add);
AtomicRequest MakeCompareSwap(uint32_t id, uint32_t stag, uint64_t offset, uint64_t compare,
                              uint64_t swap);
// Operation code and alignment (RFC 7306 5.1, 8.2); also refuses masks other than the plain ones,
// which verbs cannot ask for and this engine does not execute.
Fault Invalid(const AtomicRequest& request);

struct AtomicResponse {  // RFC 7306 5.2.2, Figure 6
  Be32 request_id;
  Be64 original;
};
static_assert(WireStruct<AtomicResponse> && sizeof(AtomicResponse) == 12);
static_assert(offsetof(AtomicResponse, original) == 4);

struct Immediate {  // RFC 7306 6: 8 bytes. Like Chelsio's, the verbs immediate is the first four.
  Be32 value;
  Be32 zero;
};
static_assert(WireStruct<Immediate> && sizeof(Immediate) == 8);

struct OpcodeRule {
  bool known = false;
  bool tagged = false;
  bool single = false;  // one segment: L set, MO 0
  uint32_t queue = 0;
  uint32_t min_payload = 0;
  uint32_t max_payload = 0;
};

inline constexpr uint32_t kMaxControlText = 128;

inline constexpr std::array<OpcodeRule, 16> kOpcodeRules = {{
    /* Write             */ {true, true, false, 0, 0, kMaxTaggedPayload},
    /* ReadRequest       */ {true, false, true, kReadRequestQueue, 28, 28},
    /* ReadResponse      */ {true, true, false, 0, 0, kMaxTaggedPayload},
    /* Send              */ {true, false, false, kSendQueue, 0, kMaxUntaggedPayload},
    /* SendInvalidate    */ {true, false, false, kSendQueue, 0, kMaxUntaggedPayload},
    /* SendSolicited     */ {true, false, false, kSendQueue, 0, kMaxUntaggedPayload},
    /* SendSolicitedInv  */ {true, false, false, kSendQueue, 0, kMaxUntaggedPayload},
    /* Terminate         */ {true, false, true, kTerminateQueue, 4, kMaxUntaggedPayload},
    /* Immediate         */ {true, false, true, kSendQueue, 8, 8},
    /* ImmediateSolicit. */ {true, false, true, kSendQueue, 8, 8},
    /* AtomicRequest     */ {true, false, true, kReadRequestQueue, 52, 52},
    /* AtomicResponse    */ {true, false, true, kAtomicResponseQueue, 12, 12},
    /* 0xC 0xD 0xE       */ {},
    {},
    {},
    /* Control           */ {true, false, true, kControlQueue, 0, kMaxControlText},
}};

namespace internal {  // cold: names the fault that Invalid() has seen
Fault ExplainTagged(const TaggedHeader& h);
Fault ExplainUntagged(const UntaggedHeader& h);
constexpr uint8_t kDdpFixed = kTagged | kDdpVersionMask;
}  // namespace internal

// Version, opcode, class and length. A fault means Terminate with its error.
inline Fault Invalid(const TaggedHeader& h) {
  const OpcodeRule& rule = kOpcodeRules[h.rdmap & kOpcodeMask];
  if ((h.ddp & internal::kDdpFixed) == (kTagged | kDdpVersion) &&
      (h.rdmap & kRdmapVersionMask) == kRdmapVersion && rule.known && rule.tagged &&
      h.length >= kTaggedUlpdu) [[likely]] {
    return {};
  }
  return internal::ExplainTagged(h);
}

// The same, and the queue, and that single-segment messages are one segment of their exact size.
inline Fault Invalid(const UntaggedHeader& h) {
  const OpcodeRule& rule = kOpcodeRules[h.rdmap & kOpcodeMask];
  const uint32_t payload = uint32_t{h.length} - kUntaggedUlpdu;  // wraps if too short: > max
  if ((h.ddp & internal::kDdpFixed) == kDdpVersion &&
      (h.rdmap & kRdmapVersionMask) == kRdmapVersion && rule.known && !rule.tagged &&
      h.queue_number == rule.queue &&
      payload - rule.min_payload <= rule.max_payload - rule.min_payload &&
      (!rule.single || ((h.ddp & kLast) != 0 &&
                        (h.message_offset == 0 || rule.queue == kControlQueue)))) [[likely]] {
    return {};
  }
  return internal::ExplainUntagged(h);
}

}  // namespace verbena::wire
