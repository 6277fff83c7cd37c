// SPDX-License-Identifier: Apache-2.0
// What every provider checks of datagrams, with the same words.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/address.h"
#include "transport/ip.h"

namespace verbena::provider {

bool IsGroup(const Ip& ip);  // a multicast address
// `what`: for the error, "attach multicast".
absl::StatusOr<Ip> ParseGroup(const char* what, const std::string& group);
// Of an address handle (AddressHandleOptions::address).
absl::StatusOr<Address> ParseDestination(const std::string& address);

absl::Status HasNoPeer(const char* what);  // a queue pair of datagrams that is to be connected
absl::Status NotAttached();                // DetachMulticast

}  // namespace verbena::provider
