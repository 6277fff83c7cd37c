// SPDX-License-Identifier: Apache-2.0
// The other end of a subject: a program of small steps becomes FPDUs that are right where the step
// does not say otherwise. So the fuzzer spends its time behind the first check, not before it.
#pragma once

#include <cstdint>
#include <vector>

#include "fallback/engine/test_fpdu.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/subject.h"

namespace verbena::fuzz {

inline constexpr size_t kStepBytes = 12;

// One step of the program. Every value means something: each change of an input is another story.
struct Step {
  explicit Step(Input* input);
  uint8_t kind;
  uint8_t a, b;
  uint16_t c, d;
  uint8_t damage;  // mostly none
  uint8_t where;
  uint8_t mask;
  uint8_t more;
};

class Peer {
 public:
  explicit Peer(Subject* subject) : subject_(*subject) {}

  // RFC 6581 9.2: what the session says that an initiator sends before all else.
  engine::Bytes ReadyFrame();
  // The FPDUs of a step; none if it has nothing to say now.
  engine::Bytes Say(const Step& step);

 private:
  engine::Bytes Write(const Step& step);
  engine::Bytes Send(const Step& step);
  engine::Bytes ReadRequest(const Step& step);
  engine::Bytes Atomic(const Step& step);
  engine::Bytes Answer(const Step& step);
  engine::Bytes Control(const Step& step);
  engine::Bytes Terminate(const Step& step);
  engine::Bytes Immediate(const Step& step);
  engine::Bytes Damaged(engine::Bytes fpdu, const Step& step) const;
  void Count();  // one more request
  uint32_t Key(uint8_t choice) const;
  uint64_t At(uint8_t choice) const;
  bool crc() const { return subject_.session().crc; }

  Subject& subject_;
  struct Numbers {
    uint32_t send_msn = 1;
    uint32_t read_msn = 1;
  };
  Numbers next_;
  std::vector<Numbers> requests_{1};  // by request number, where each one stood
  uint32_t answer_msn_ = 1;
  uint32_t refused_ = 0;
};

}  // namespace verbena::fuzz
