// SPDX-License-Identifier: Apache-2.0
// FPDUs by hand, for tests: made one by one, and told as text.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "fallback/wire/control.h"
#include "fallback/wire/ddp.h"
#include "fallback/wire/rdmap.h"

namespace verbena::engine {

using Bytes = std::vector<std::byte>;

// Header, payload, pad and trailer; the length field is set unless it is already.
Bytes MakeFpdu(wire::TaggedHeader header, std::span<const std::byte> payload = {},
               bool crc = false);
Bytes MakeFpdu(wire::UntaggedHeader header, std::span<const std::byte> payload = {},
               bool crc = false);
Bytes MakeControlFpdu(const wire::Control& control, std::string_view text = {}, bool crc = false);

wire::TaggedHeader WriteHeader(uint32_t stag, uint64_t offset, uint8_t extra = 0);
wire::UntaggedHeader SendHeader(uint32_t msn, uint32_t offset = 0, uint8_t extra = 0);
wire::UntaggedHeader UntaggedOf(wire::Opcode opcode, uint32_t msn);

Bytes operator+(Bytes a, const Bytes& b);

struct Fpdu {
  uint8_t ddp = 0;
  uint8_t rdmap = 0;
  wire::TaggedHeader tagged;
  wire::UntaggedHeader untagged;
  Bytes payload;
  bool crc_is_right = false;
  size_t size = 0;
  wire::Opcode opcode() const { return wire::OpcodeOf(rdmap); }
};
// What `stream` consists of; a rest that is no whole FPDU is left out.
std::vector<Fpdu> ParseFpdus(std::span<const std::byte> stream);

// "Write~ Write* ACK(2) Send#": ~ more segments follow, * an acknowledgement is wanted, # with an
// immediate, ! solicited; control messages with their request number.
std::string TraceOf(std::span<const std::byte> stream);

}  // namespace verbena::engine
