// SPDX-License-Identifier: Apache-2.0
//
// Control messages between two Verbena ends: opcode 0xF, which RFC 6580 3.4 leaves to experiments,
// untagged, one FPDU of a header alone (Nak may carry text). The header's fields are:
//
//   ulp = type << 24 | code << 16 | 0     msn = request number     message_offset = value
//
// They belong to no DDP message sequence, may stand between any two FPDUs, and are handled at once.
// Who sends which and when: docs/wire.md, docs/decisions/0004-control-messages.md.
#pragma once

#include <array>
#include <cstdint>

#include "fallback/wire/ddp.h"
#include "fallback/wire/rdmap.h"

namespace verbena::wire {

// Every request of a connection has an implied 32-bit number (RSN), from 1, in posting order: each
// Send, Write (with its Immediate), Read and atomic is one.
enum class ControlType : uint8_t {
  kAck = 1,     // rsn: the last request applied; all before it are, too
  kRnrNak = 2,  // rsn: refused for lack of a receive; value: RNR timer code. Drop from rsn on
  kResume = 3,  // rsn: the next request that follows is this one again
  kReady = 4,   // rsn: a receive is there now, the requester need not wait for the timer
  kNak = 5,     // rsn: failed; code: NakCode; payload: text. A Terminate follows
  kBye = 6,     // nothing follows but the end of the stream
};

enum class NakCode : uint8_t {
  kNone = 0,
  kRemoteAccess = 1,
  kRemoteInvalidRequest = 2,
  kRemoteOperation = 3,
  kProtocol = 4,
};

struct Control {
  ControlType type = ControlType::kAck;
  NakCode code = NakCode::kNone;
  uint32_t rsn = 0;
  uint32_t value = 0;
};

// Requests before one another, on a circle of 2^32.
constexpr bool RsnBefore(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }

// `text` is the size of the payload that follows, 0..kMaxControlText.
inline UntaggedHeader MakeControl(const Control& c, uint32_t text = 0) {
  UntaggedHeader h;
  h.length = static_cast<uint16_t>(kUntaggedUlpdu + text);
  h.ddp = kDdpVersion | kLast;
  h.rdmap = RdmapByte(Opcode::kControl);
  h.ulp = uint32_t{static_cast<uint8_t>(c.type)} << 24 | uint32_t{static_cast<uint8_t>(c.code)}
                                                             << 16;
  h.queue_number = kControlQueue;
  h.msn = c.rsn;
  h.message_offset = c.value;
  return h;
}

// For a header that Invalid() has passed and whose opcode is kControl.
inline Control ReadControl(const UntaggedHeader& h) {
  const uint32_t word = h.ulp;
  return {static_cast<ControlType>(word >> 24), static_cast<NakCode>((word >> 16) & 0xff), h.msn,
          h.message_offset};
}

// Unknown type or code, a timer code beyond 31, text where there is none. `payload` is
// PayloadSize() of the header. The low 16 bits of the word are reserved: not checked.
Fault Invalid(const Control& control, uint32_t payload);

const char* ControlName(ControlType type);
const char* NakText(NakCode code);

// RNR NAK timer codes, InfiniBand Architecture 9.7.5.2.8, in microseconds. Code 0 is the longest.
inline constexpr uint32_t kMaxRnrTimerCode = 31;
inline constexpr std::array<uint32_t, 32> kRnrTimerUs = {
    655360, 10,    20,    30,    40,    60,     80,     120,    160,    240,   320,
    480,    640,   960,   1280,  1920,  2560,   3840,   5120,   7680,   10240, 15360,
    20480,  30720, 40960, 61440, 81920, 122880, 163840, 245760, 327680, 491520};
constexpr uint32_t RnrTimerUs(uint32_t code) { return kRnrTimerUs[code & kMaxRnrTimerCode]; }

}  // namespace verbena::wire
