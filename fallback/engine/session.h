// SPDX-License-Identifier: Apache-2.0
// What the hand-shake settles for a queue pair. A plain value.
#pragma once

#include <cstdint>
#include <optional>

#include "fallback/engine/foreign.h"
#include "fallback/wire/extension.h"

namespace verbena::engine {

enum class ReadyFrame : uint8_t { kNone, kWrite, kRead, kSend };  // RFC 6581 9.2
struct Session {
  bool initiator = false;
  ReadyFrame ready_frame = ReadyFrame::kNone;  // the initiator sends it, the responder waits for it
  wire::Negotiated features;                   // empty: a foreign peer
  bool crc = false;
  uint32_t mss = 1460;  // bounds FPDUs if features.max_payload is 0
  uint32_t ord = 1;     // reads and atomics of ours in flight
  uint32_t ird = 1;     // the peer's
  // A plain peer, whose acknowledgement is wanted: reads behind our sends and writes stand in for
  // it. They read what it lends for that, or nothing.
  bool confirm = false;
  std::optional<LentBytes> lent = {};
};

}  // namespace verbena::engine
