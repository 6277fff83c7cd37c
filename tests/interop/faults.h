// SPDX-License-Identifier: Apache-2.0
// Requests that the other end has to refuse: what each end is told about it.
#pragma once

#include <span>
#include <string>

#include "tests/interop/cells.h"

namespace verbena::interop {

struct Fault {
  const char* name;
  // What the active end gets, by who it is: the status of the wrong request, then that of a good
  // read behind it, or of a good write and of a wrong read behind it; empty: it cannot play this. A
  // plain send or write completes when TCP has it, so that only the read can tell.
  const char* tcp_tells;
  const char* siw_tells;
  // What becomes of the receive that the passive end has posted, by who the passive end is.
  const char* receive_of_siw;
  const char* receive_of_tcp;
};
std::span<const Fault> Faults();

// On a connection of its own, which it ends. The verdict's detail is what both ends were told.
Verdict Run(const Fault& fault, bool by_initiator, End& end, SideChannel& side);

}  // namespace verbena::interop
