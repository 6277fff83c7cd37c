// SPDX-License-Identifier: Apache-2.0
// Which addresses of this machine to tell peers.
#pragma once

#include <ifaddrs.h>

#include <vector>

#include "transport/address.h"

namespace verbena::io {

using provider::Address;

// Those of interfaces that are up, IPv4 first: the ones that lead far; near ones (169.254/16, and
// of bridges and links to containers and guests, which mean something else on every machine) only
// if there are no others; the loopback's only if there is nothing else at all. None of fe80::/10,
// which need a zone.
std::vector<Address> LocalAddresses();

// The same of a list as getifaddrs(3) makes it.
std::vector<Address> ToTellPeers(const ifaddrs* list);

}  // namespace verbena::io
