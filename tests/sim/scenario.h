// SPDX-License-Identifier: Apache-2.0
// What a seed means: a topology with its parameters, and steps. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fallback/engine/queue_pair.h"

namespace verbena::sim {

inline constexpr uint32_t kMaxNodes = 4;
inline constexpr uint32_t kMaxLinks = 6;
inline constexpr uint32_t kMaxEnds = 2 * kMaxLinks;
inline constexpr uint32_t kMaxSlots = 32;  // requests or receives of an end at once

// Node 0 is connected with each of the others, by one link or more. End 2n is node 0's of link n.
struct Config {
  uint64_t seed = 0;
  uint32_t nodes = 2;
  uint32_t links = 1;
  uint32_t slots = 8;
  uint32_t longest = 256;  // bytes of a message
  uint32_t window = 4096;  // bytes that a stream holds
  uint32_t max_payload = 61440;
  uint32_t depth = 4;  // reads and atomics in flight
  bool crc = false;
  bool signal_all = true;
  bool shared_receives = false;  // node 0's
  bool faults = false;
  uint32_t first_number = 1;  // of messages and requests
  uint8_t rnr_timer = 1;
  uint8_t rnr_retry = 7;
  bool refusals = false;  // of memory, while things are made
  engine::Hardships hardships;
  engine::ReadyFrame ready_frame = engine::ReadyFrame::kWrite;
};

enum class Action : uint8_t {
  kPost,
  kPostReceive,
  kWindow,   // bind or invalidate one
  kTurn,     // one drive of an end
  kPoll,     // of a node's completion queues
  kAdvance,  // the clock
  kInspect,  // an end's memory, in the middle of things
  kStall,    // a stream brings nothing until it is let go
  kDrain,    // SQD, or back to RTS
  kSettle,   // everything runs to its end and is checked
  // faults
  kBreak,       // a link's stream is reset
  kHalfClose,   // one direction ends without a word
  kDisconnect,  // by one end
  kError,       // an end is modified to ERR
  kRefuse,      // memory for copies, from now on or no longer
  kDeregister,  // memory of an end, under whatever traffic there is
  kReconnect,   // a link goes through RESET and connects anew
};
const char* ActionName(Action action);

struct Step {
  Action action = Action::kSettle;
  uint8_t who = 0;      // end, node or link
  uint64_t random = 0;  // for what the action leaves open
};

struct Scenario {
  Config config;
  std::vector<Step> steps;
};

Scenario MakeScenario(uint64_t seed);
std::string Describe(const Config& config);

}  // namespace verbena::sim
