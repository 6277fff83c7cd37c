// SPDX-License-Identifier: Apache-2.0
// A TCP connection between the two sides of raw_socket, with TCP_NODELAY.
#pragma once

#include "tests/bench/sides.h"

namespace verbena::bench {

void Need(bool good, const char* what);  // or ends the program with errno's text

int AcceptOne(const Options& options, Shared& shared);
int ConnectOne(const Options& options, const Shared& shared);

Row BatchedCalls();  // the least that an RPC on a socket has to do

}  // namespace verbena::bench
