// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/rdmap.h"

namespace verbena::wire {

const char* OpcodeName(Opcode op) {
  switch (op) {
    case Opcode::kWrite:
      return "RDMA Write";
    case Opcode::kReadRequest:
      return "RDMA Read Request";
    case Opcode::kReadResponse:
      return "RDMA Read Response";
    case Opcode::kSend:
      return "Send";
    case Opcode::kSendInvalidate:
      return "Send with Invalidate";
    case Opcode::kSendSolicited:
      return "Send with Solicited Event";
    case Opcode::kSendSolicitedInvalidate:
      return "Send with Solicited Event and Invalidate";
    case Opcode::kTerminate:
      return "Terminate";
    case Opcode::kImmediate:
      return "Immediate Data";
    case Opcode::kImmediateSolicited:
      return "Immediate Data with Solicited Event";
    case Opcode::kAtomicRequest:
      return "Atomic Request";
    case Opcode::kAtomicResponse:
      return "Atomic Response";
    case Opcode::kControl:
      return "control message";
  }
  return "reserved opcode";
}

AtomicRequest MakeFetchAdd(uint32_t id, uint32_t stag, uint64_t offset, uint64_t add) {
  // RFC 7306 5.1.1. The mask marks the top bits of sub-fields; none is one 64-bit field.
  AtomicRequest r;
  r.operation = kFetchAdd;
  r.request_id = id;
  r.stag = stag;
  r.tagged_offset = offset;
  r.operand = add;
  r.operand_mask = 0;
  r.compare = 0;
  r.compare_mask = ~uint64_t{0};
  return r;
}

AtomicRequest MakeCompareSwap(uint32_t id, uint32_t stag, uint64_t offset, uint64_t compare,
                              uint64_t swap) {
  AtomicRequest r;
  r.operation = kCompareSwap;
  r.request_id = id;
  r.stag = stag;
  r.tagged_offset = offset;
  r.operand = swap;
  r.operand_mask = ~uint64_t{0};
  r.compare = compare;
  r.compare_mask = ~uint64_t{0};
  return r;
}

Fault Invalid(const AtomicRequest& request) {
  const uint32_t code = request.operation & kAtomicCodeMask;  // the other 28 bits are reserved
  constexpr uint64_t kAll = ~uint64_t{0};
  if (code != kFetchAdd && code != kCompareSwap) {
    return {"atomic operation code is neither FetchAdd nor CmpSwap", error::kUnspecified};
  }
  if (request.tagged_offset % 8 != 0) {
    return {"atomic target is not aligned to 8 bytes", error::kStreamCatastrophic};
  }
  // A FetchAdd ignores the compare fields; their values are only what a sender should put there.
  if (code == kFetchAdd && request.operand_mask != 0) {
    return {"masked FetchAdd is not supported", error::kUnspecified};
  }
  if (code == kCompareSwap && (request.operand_mask != kAll || request.compare_mask != kAll)) {
    return {"masked CmpSwap is not supported", error::kUnspecified};
  }
  return {};
}

namespace internal {
namespace {

// What is wrong with the RDMAP byte for this class, in RFC 5040's order: version, then opcode.
Fault ExplainRdmap(uint8_t rdmap, bool tagged) {
  const OpcodeRule& rule = kOpcodeRules[rdmap & kOpcodeMask];
  if ((rdmap & kRdmapVersionMask) != kRdmapVersion) {
    return {"RDMAP version is not 1 (RFC 5040 4.1)", error::kRdmapVersion};
  }
  if (!rule.known) return {"reserved RDMAP opcode (RFC 5040 4.2)", error::kUnexpectedOpcode};
  if (rule.tagged != tagged) {
    return {tagged ? "untagged RDMAP opcode in a tagged segment (RFC 5040 4.2)"
                   : "tagged RDMAP opcode in an untagged segment (RFC 5040 4.2)",
            error::kUnexpectedOpcode};
  }
  return {};
}

}  // namespace

Fault ExplainTagged(const TaggedHeader& h) {
  if (!IsTagged(h.ddp)) {
    return {"untagged segment read as a tagged one", error::kDdpCatastrophic};
  }
  if (h.length < kTaggedUlpdu) {
    return {"ULPDU_Length is below the 14 bytes of a tagged header (RFC 5041 4.2)", error::kFpdu};
  }
  if ((h.ddp & kDdpVersionMask) != kDdpVersion) {
    return {"DDP version is not 1 (RFC 5041 4.1)", error::kTaggedVersion};
  }
  return ExplainRdmap(h.rdmap, true);
}

Fault ExplainUntagged(const UntaggedHeader& h) {
  if (IsTagged(h.ddp)) return {"tagged segment read as an untagged one", error::kDdpCatastrophic};
  if (h.length < kUntaggedUlpdu) {
    return {"ULPDU_Length is below the 18 bytes of an untagged header (RFC 5041 4.3)",
            error::kFpdu};
  }
  if ((h.ddp & kDdpVersionMask) != kDdpVersion) {
    return {"DDP version is not 1 (RFC 5041 4.1)", error::kUntaggedVersion};
  }
  if (const Fault fault = ExplainRdmap(h.rdmap, false)) return fault;
  const OpcodeRule& rule = kOpcodeRules[h.rdmap & kOpcodeMask];
  if (h.queue_number > kAtomicResponseQueue && h.queue_number != kControlQueue) {
    return {"queue number does not exist (RFC 5041 4.3)", error::kQueueNumber};
  }
  if (h.queue_number != rule.queue) {
    return {"RDMAP opcode on another opcode's queue (RFC 5040 4.2)", error::kUnexpectedOpcode};
  }
  if (rule.single && (h.ddp & kLast) == 0) {
    return {"message of one segment lacks the Last flag (RFC 5041 5.2)", error::kTooLong};
  }
  if (rule.single && h.message_offset != 0 && rule.queue != kControlQueue) {
    return {"message of one segment does not begin at offset 0 (RFC 5041 5.2)",
            error::kMessageOffset};
  }
  if (PayloadSize(h) > rule.max_payload) {
    return {"message is longer than its opcode allows (RFC 5040 4.2)", error::kTooLong};
  }
  if (PayloadSize(h) < rule.min_payload) {
    return {"message is shorter than its opcode demands (RFC 5040 4.2)", error::kUnspecified};
  }
  return {};
}

}  // namespace internal

}  // namespace verbena::wire
