// SPDX-License-Identifier: Apache-2.0
// The cells of the matrix: one operation of one size, by one of both ends.
#pragma once

#include <cstdint>
#include <string>

#include "tests/interop/end.h"
#include "tests/interop/side_channel.h"

namespace verbena::interop {

enum class Operation : uint8_t { kWrite, kRead, kSend, kSendSolicited, kSendInvalidate };
inline constexpr Operation kOperations[] = {Operation::kWrite, Operation::kRead, Operation::kSend,
                                            Operation::kSendSolicited, Operation::kSendInvalidate};
const char* OperationName(Operation operation);  // "write"

struct Cell {
  Operation operation = Operation::kWrite;
  uint64_t size = 0;         // bytes
  bool by_initiator = true;  // who posts it
};

struct Verdict {
  bool ok = true;
  std::string detail;  // what was measured, or what is wrong at either end
};

// Both processes call it with the same cell. The connection is of no use after a failure.
Verdict Run(const Cell& cell, End& end, SideChannel& side, uint64_t seed);

}  // namespace verbena::interop
