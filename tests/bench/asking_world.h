// SPDX-License-Identifier: Apache-2.0
// The kernel's streams, on which whoever connects asks for what no option of the API asks for: the
// first thing that it sends, the MPA Request, is changed on its way out. Costs one more call on
// each send and receive.
#pragma once

#include <memory>

#include "fallback/io/world.h"

namespace verbena::bench {

enum class Ask {
  kCrc,    // CRC32C on every FPDU (RFC 5044 7.1.1, C)
  kPlain,  // without our record: both ends take each other for plain iWARP peers such as siw, so no
           // FPDU is longer than a TCP segment
};

std::unique_ptr<io::World> Asking(std::unique_ptr<io::World> world, Ask what);

}  // namespace verbena::bench
