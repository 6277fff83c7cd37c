// SPDX-License-Identifier: Apache-2.0
// Numeric addresses as 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "transport/ip.h"

namespace verbena::connect {

std::optional<Ip> ParseIp(absl::string_view text);
std::string ToText(const Ip& ip);
// "10.0.0.1:7471", "[fe80::1]:7471".
std::string WithPort(const Ip& ip, uint16_t port);

// "10.0.0.1" of "10.0.0.1:7471", "fe80::1" of "[fe80::1]:7471".
std::string HostOf(absl::string_view address);
uint16_t PortOf(absl::string_view address);  // 0: none

bool IsAny(const Ip& ip);  // 0.0.0.0 or ::

// Whether one machine may have both: they are the same, or of one IPv6 /64 (RFC 4291 2.5.1).
bool OneNetwork(const Ip& a, const Ip& b);

// How many leading bits two addresses share; -1: of different families.
int Nearness(const Ip& a, const Ip& b);

}  // namespace verbena::connect
