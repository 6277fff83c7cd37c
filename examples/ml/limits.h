// SPDX-License-Identifier: Apache-2.0
// Numbers that somebody chose, with the reason. The ranks of a group have the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ml {

// What one rank may send another before it hears back. Touched as it is used: a link that carries
// small messages only costs a few pages. Larger slots leave a core's cache before they are added,
// smaller ones cost more messages.
inline constexpr uint32_t kSlots = 16;
inline constexpr uint32_t kSlotBytes = 256u << 10;

// Pieces that go one way before anything goes the other, where two ranks take turns.
inline constexpr size_t kBurst = 8;

// Up to here a tensor goes as one message, copied once, and latency counts; above it bandwidth.
inline constexpr uint32_t kSmallBytes = 16u << 10;

// Credits go back with whatever is sent; alone when so many are owed.
inline constexpr uint32_t kCreditsAlone = kSlots / 2;

// Receives: one for each message that may be on its way, two for credits that go alone (each gives
// back half of all), one to say goodbye.
inline constexpr uint32_t kReceives = kSlots + 3;
inline constexpr uint32_t kSends = 2 * kReceives;

}  // namespace ml
