// SPDX-License-Identifier: Apache-2.0
// What the kernel does for a connection over TCP: the figures depend on it.
#pragma once

#include <cstdint>
#include <string>

#include "transport/options.h"

namespace verbena::tool {

struct TcpFacts {
  std::string congestion_control;  // "bbr", "reno"; empty: not over kernel TCP
  uint32_t send_buffer = 0;        // bytes, as the kernel has grown it by now
  uint32_t receive_buffer = 0;
};

// Looks for the socket of this process that has the connection's two addresses: the library keeps
// its sockets to itself.
TcpFacts FactsOf(const ConnectionInfo& connection);

}  // namespace verbena::tool
