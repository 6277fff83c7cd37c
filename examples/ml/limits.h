// SPDX-License-Identifier: Apache-2.0
// Numbers that somebody chose, with the reason. The ranks of a group have the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ml {

// What one rank may send another before it hears back. Slots are touched as they are used: a link
// that carries small messages only costs a few pages.
inline constexpr uint32_t kSlots = 16;
inline constexpr uint32_t kSlotBytes = 512u << 10;

// A segment that fits a slot goes as one piece. Longer ones go in pieces of this size: one is added
// while the next is on its way.
inline constexpr uint32_t kPieceBytes = 256u << 10;

// Up to here a tensor goes as one message, copied once, and latency counts; above it bandwidth.
inline constexpr uint32_t kSmallBytes = 64u << 10;

// Credits go back with whatever is sent; alone when so many are owed.
inline constexpr uint32_t kCreditsAlone = kSlots / 2;

// Receives: one for each message that may be on its way, two for credits that go alone (each gives
// back half of all), one to say goodbye.
inline constexpr uint32_t kReceives = kSlots + 3;
inline constexpr uint32_t kSends = 2 * kReceives;

}  // namespace ml
