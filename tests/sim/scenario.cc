// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/scenario.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "tests/sim/dice.h"
#include "tests/sim/wire.h"

namespace verbena::sim {

namespace {

template <typename T, size_t kN>
T OneOf(Dice& dice, const T (&values)[kN]) {
  return values[dice.Below(kN)];
}

Config MakeConfig(uint64_t seed) {
  static constexpr uint32_t kSlots[] = {2, 8, 16, 32};
  static constexpr uint32_t kWindows[] = {64, 700, 9000, 1 << 16, 1 << 18};
  static constexpr uint32_t kPayloads[] = {1024, 4096, 61440};
  static constexpr uint32_t kDepths[] = {1, 2, 4, 16};
  static constexpr uint8_t kRetries[] = {7, 7, 7, 0, 1, 3};
  static constexpr engine::ReadyFrame kFrames[] = {
      engine::ReadyFrame::kWrite, engine::ReadyFrame::kRead, engine::ReadyFrame::kSend};
  Dice dice(seed);
  Config c;
  c.seed = seed;
  if (dice.OneIn(3)) {
    c.nodes = dice.Between(2, kMaxNodes);
    c.links = dice.Between(c.nodes - 1, kMaxLinks);
    c.shared_receives = dice.OneIn(2);
  }
  c.slots = OneOf(dice, kSlots);
  switch (dice.Below(32)) {
    case 0:
      c.longest = 150000;
      c.slots = 8;
      break;
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
      c.longest = 9000;
      break;
    default:
      c.longest = 300;
  }
  c.window = OneOf(dice, kWindows);
  if (c.longest > 9000) c.window = Wire::kMost;
  c.max_payload = OneOf(dice, kPayloads);
  c.depth = OneOf(dice, kDepths);
  c.crc = dice.OneIn(3);
  c.signal_all = dice.OneIn(2);
  c.faults = dice.OneIn(2);
  if (dice.OneIn(4)) c.first_number = 0u - dice.Between(2, 60);  // they wrap around
  c.rnr_timer = static_cast<uint8_t>(dice.Below(32));
  c.rnr_retry = OneOf(dice, kRetries);
  c.ready_frame = OneOf(dice, kFrames);
  c.hardships.late_answers = dice.OneIn(4);
  c.refusals = dice.OneIn(8);
  c.hardships.poison = dice.OneIn(4);
  c.hardships.device_atomics = dice.OneIn(16);
  return c;
}

struct Row {
  Action action;
  uint32_t weight;
  bool fault;
};
constexpr Row kRows[] = {
    {Action::kPost, 400, false},    {Action::kPostReceive, 120, false},
    {Action::kWindow, 20, false},   {Action::kTurn, 300, false},
    {Action::kPoll, 100, false},    {Action::kAdvance, 20, false},
    {Action::kInspect, 5, false},   {Action::kStall, 8, false},
    {Action::kDrain, 8, false},     {Action::kSettle, 6, false},
    {Action::kBreak, 2, true},      {Action::kHalfClose, 2, true},
    {Action::kDisconnect, 3, true}, {Action::kError, 3, true},
    {Action::kRefuse, 2, true},     {Action::kDeregister, 5, true},
    {Action::kReconnect, 6, true},
};

uint32_t WhoOf(Action action, const Config& c, Dice& dice) {
  switch (action) {
    case Action::kPoll:
      return dice.Below(c.nodes);
    case Action::kBreak:
    case Action::kReconnect:
      return dice.Below(c.links);
    default:
      return dice.Below(2 * c.links);
  }
}

}  // namespace

const char* ActionName(Action action) {
  static constexpr const char* kNames[] = {
      "post",       "receive", "window", "turn",       "poll",     "advance",
      "inspect",    "stall",   "drain",  "settle",     "break",    "half-close",
      "disconnect", "error",   "refuse", "deregister", "reconnect"};
  static_assert(std::size(kNames) == static_cast<size_t>(Action::kReconnect) + 1);
  return kNames[static_cast<size_t>(action)];
}

Scenario MakeScenario(uint64_t seed) {
  Scenario s;
  s.config = MakeConfig(seed);
  Dice dice(seed ^ 0x5ce7a210);
  uint32_t weights = 0;
  for (const Row& row : kRows) weights += row.fault && !s.config.faults ? 0 : row.weight;
  const uint32_t count = dice.OneIn(4) ? dice.Between(20, 100) : dice.Between(200, 1500);
  s.steps.reserve(count + 1);
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t at = dice.Below(weights);
    const Row* row = kRows;
    for (; row->fault && !s.config.faults; ++row) {
    }
    while (at >= row->weight) at -= (row++)->weight;
    const uint32_t who = WhoOf(row->action, s.config, dice);
    s.steps.push_back({row->action, static_cast<uint8_t>(who), dice.Next()});
  }
  s.steps.push_back({Action::kSettle, 0, dice.Next()});
  return s;
}

std::string Describe(const Config& c) {
  return absl::StrCat(
      c.nodes, " nodes, ", c.links, " links, ", c.slots, " requests at once, up to ", c.longest,
      " bytes, window ", c.window, ", FPDU ", c.max_payload, ", depth ", c.depth,
      c.crc ? ", CRC" : "", c.signal_all ? ", all signalled" : "",
      c.shared_receives ? ", shared receives" : "", c.faults ? ", faults" : "",
      c.hardships.late_answers ? ", late answers" : "", c.hardships.poison ? ", poison" : "",
      ", RNR timer ", c.rnr_timer, " retry ", c.rnr_retry);
}

}  // namespace verbena::sim
