// SPDX-License-Identifier: Apache-2.0
// Every number that somebody chose, with its reason.
#pragma once

#include <cstddef>

#include "absl/time/time.h"

namespace verbena::connect {

// A device that cannot reach the peer must not hold a caller up: rdma_cm alone would try an
// unreachable RoCE peer for 65 s (4.1 s, 16 times).
inline constexpr absl::Duration kProofTime = absl::Seconds(1);
// So many devices of the listener's share that time, if the first ones are of no use.
inline constexpr uint8_t kWays = 4;
// The listener's service answers by itself, so this is one lost SYN and a round trip.
inline constexpr absl::Duration kRendezvousTime = absl::Seconds(3);
// What was found out is not found out again for every connection, and not believed for ever.
inline constexpr absl::Duration kRemember = absl::Seconds(30);
inline constexpr size_t kRemembered = 1024;  // addresses

// Counters of candidates and why they did not serve. Peers tell theirs in words of their own.
inline constexpr size_t kLosers = 256;

// A port that was offered and not used.
inline constexpr absl::Duration kOfferTime = absl::Seconds(30);
// A peer may start this many connects at once; each costs a listening socket until it is used.
inline constexpr size_t kOffersPerPeer = 64;
inline constexpr size_t kOffers = 256;  // two descriptors each; 1024 is a usual limit
// One machine may use every address of its IPv6 /64 (RFC 8981): from there not all come in.
inline constexpr size_t kOffersPerNetwork = kOffers / 2;
// The caller closes a proof as soon as it stands.
inline constexpr absl::Duration kProofLinger = absl::Seconds(5);

}  // namespace verbena::connect
