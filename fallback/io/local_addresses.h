// SPDX-License-Identifier: Apache-2.0
// Which addresses of this machine to tell peers.
#pragma once

#include <vector>

#include "transport/address.h"

namespace verbena::io {

using provider::Address;

// Those of interfaces that are up, IPv4 first: no link-local ones, which need a zone; none of
// bridges and links to containers and guests, which mean something else on every machine, unless
// there are no others; the loopback's only if there is nothing else at all.
std::vector<Address> LocalAddresses();

}  // namespace verbena::io
