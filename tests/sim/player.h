// SPDX-License-Identifier: Apache-2.0
// Plays the steps of a scenario on the world, and holds the model against what comes of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/dice.h"
#include "tests/sim/flow.h"
#include "tests/sim/world.h"

namespace verbena::sim {

struct Outcome {
  bool failed = false;
  std::string text;       // what was wrong
  uint64_t requests = 0;  // checked: sends and receives
  std::string story;      // of every step, if asked for
};

class Player {
 public:
  Player(const Config& config, Pool* pool, bool tell);

  // Plays the steps that `keep` names (all of them: empty). `at` follows, for who may see it crash.
  Outcome Play(const std::vector<Step>& steps, const std::vector<uint32_t>& keep,
               volatile uint32_t* at);

 private:
  void Do(const Step& step);

  // posting.cc
  void Post(uint32_t end, Dice dice);
  bool Choose(uint32_t end, Dice& dice, Request* r);
  void ChooseFlags(uint32_t end, Dice& dice, Request* r);
  bool MayFail(uint32_t end, Dice& dice, Request* r);
  void Submit(uint32_t end, Dice& dice, Request& r);
  void PostReceive(uint32_t end, Dice dice, bool wanted);
  Layout Split(Dice& dice, size_t base, uint32_t length) const;

  // windows.cc
  void UseWindow(uint32_t end, Dice dice);
  void MarkUsersOf(uint32_t end, uint32_t window);
  void ChooseWindow(uint32_t end, Dice& dice, Request* r);
  uint32_t Offend(Dice& dice, const Request& r, SendWr* wr, Sge* sges);

  // faults.cc
  void Break(uint32_t link, Dice dice);
  void HalfClose(uint32_t end);
  void Disconnect(uint32_t end, bool modify);
  void Deregister(uint32_t end, Dice dice);
  void MarkUsers(uint32_t end, AreaKind kind);
  void Reconnect(uint32_t link, Dice dice);
  void Refuse();
  void Renew(uint32_t end);

  void Turn(uint32_t end, Dice dice);
  void Poll(uint32_t node, Dice dice);
  size_t PollSome(uint32_t node, size_t most);
  void PollAll();
  void OnReceive(const WorkCompletion& wc);
  void Drain(uint32_t end);
  void Settle();
  bool Quiet();
  void SupplyReceives();
  void CheckLink(uint32_t link);
  void CheckWords();
  void CheckShared();
  Receives& ReceivesOf(uint32_t end) { return receives_[Shares(end) ? kMaxEnds : end]; }
  Area& ReceiveArea(uint32_t end);
  bool Shares(uint32_t end) const { return config_.shared_receives && end % 2 == 0; }
  Doom& doom(uint32_t end) { return dooms_[end / 2]; }
  bool Dead(uint32_t end) { return world_.end(end).qp.state() == QpState::kErr; }
  template <typename... Args>
  void Say(const Args&... args) {
    if (tell_) absl::StrAppend(&story_, "    ", args..., "\n");
  }

  const Config config_;
  const bool tell_;
  std::string story_;
  Verdict verdict_;
  World world_;
  Doom dooms_[kMaxLinks];
  std::vector<std::unique_ptr<Flow>> flows_;
  Receives receives_[kMaxEnds + 1];
  bool receive_failed_[kMaxEnds] = {};
  uint64_t sums_[kMaxNodes][kWordCount] = {};
  bool sums_known_ = true;
  bool refuses_ = false;
  uint64_t requests_ = 0;
};

}  // namespace verbena::sim
