// SPDX-License-Identifier: Apache-2.0
// What a plain iWARP peer can do wrong, and the words in which siw complains of it (Linux 6.1,
// siw_qp_rx.c, siw_qp_tx.c): each row is played to Verbena over TCP and to siw, and siw's words,
// byte for byte, to Verbena.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fallback/wire/rdmap.h"
#include "fallback/wire/terminate.h"
#include "tests/interop/target.h"

namespace verbena::interop {

// How siw begins a Terminate: type and layer, code, flags M, D, R in 0x01, 0x02, 0x04.
struct SiwWord {
  uint8_t type_layer, code, flags;
  // What Verbena tells a program whose oldest request without an answer is a read, and why.
  WcStatus told;
  const char* text;
};

// The body of the Terminate in which siw complains of an FPDU (siw_qp.c siw_send_terminate), one
// for each FPDU of `stream`.
std::vector<Bytes> SiwTerminates(const SiwWord& word, const Bytes& stream);

struct Violation {
  const char* name;
  std::function<Bytes(const Target&)> bytes;
  wire::TerminateError terminate;  // ours
  EventType event;
  std::optional<SiwWord> siw;             // none: a read that siw answers
  WcStatus receive = WcStatus::kFlushed;  // of the one that is posted
  WcStatus siw_receive = receive;
  bool crc = false;
  bool siw_may_say_nothing = false;  // it does not in the middle of an answer (siw_send_terminate)
};
std::span<const Violation> Violations();

// What it answers to a read of 8 bytes. Another read is open, and a receive is posted.
struct WrongAnswer {
  const char* name;
  std::function<Bytes(const wire::ReadRequest&)> bytes;
  wire::TerminateError terminate;  // ours
  std::string statuses;            // of both reads
  SiwWord siw;
  bool crc = false;
};
std::span<const WrongAnswer> WrongAnswers();

Bytes Answer(const wire::ReadRequest& r, size_t size, uint32_t stag_off = 0, uint64_t offset = 0,
             bool crc = false);

}  // namespace verbena::interop
