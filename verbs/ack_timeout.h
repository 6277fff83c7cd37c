// SPDX-License-Identifier: Apache-2.0
// How long a queue pair waits for an acknowledgement, where no connection manager computes it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace verbena::verbs {

// What Linux takes for a path whose subnet has no manager to tell (6.1
// drivers/infiniband/core/cma.c CMA_IBOE_PACKET_LIFETIME): 1.07 s.
inline constexpr int kPacketLifeTime = 18;

// 2 × PacketLifeTime + ACK delay (IBTA 12.7.34), as codes: 4.096 µs × 2^code. The nearest, as the
// kernel rounds for connections that it makes: the larger of the two terms, and the next code if
// the other is at least half of it (cm.c cm_ack_timeout).
constexpr uint8_t AckTimeout(int packet_life_time, int ack_delay) {
  const int larger = std::max(packet_life_time + 1, ack_delay);
  const int smaller = std::min(packet_life_time + 1, ack_delay);
  return static_cast<uint8_t>(std::min(31, larger + (smaller >= larger - 1 ? 1 : 0)));
}

static_assert(AckTimeout(18, 15) == 19 && AckTimeout(18, 17) == 19 && AckTimeout(18, 18) == 20);
static_assert(AckTimeout(14, 15) == 16 && AckTimeout(13, 15) == 16 && AckTimeout(12, 15) == 15);
static_assert(AckTimeout(31, 0) == 31 && AckTimeout(0, 0) == 2);

}  // namespace verbena::verbs
