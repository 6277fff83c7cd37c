// SPDX-License-Identifier: Apache-2.0
// Opcode 0xF: control messages of any type, number and value, between two requests or in the middle
// of a message, into a live queue pair that has requests out.
#include "fallback/wire/control.h"

#include <string>

#include "fallback/engine/test_fpdu.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/subject.h"

namespace verbena::fuzz {
namespace {

using engine::operator+;

constexpr int kMostMessages = 32;

void CheckCodec(const wire::Control& c, uint32_t text) {
  const wire::UntaggedHeader h = wire::MakeControl(c, text);
  const wire::Control again = wire::ReadControl(h);
  FUZZ_CHECK(again.type == c.type && again.code == c.code);
  FUZZ_CHECK(again.rsn == c.rsn && again.value == c.value);
  const wire::Fault fault = wire::Invalid(c, text);
  FUZZ_CHECK(bool(wire::Invalid(h)) == (text > wire::kMaxControlText));
  FUZZ_CHECK(std::string(wire::ControlName(c.type)) != "" &&
             std::string(wire::NakText(c.code)) != "");
  FUZZ_CHECK(fault || c.type != wire::ControlType::kRnrNak || c.value <= wire::kMaxRnrTimerCode);
}

// Ten bytes: type, code, what the number counts from, number, value, length of the text.
wire::Control Next(Input* input, const Subject& subject, uint32_t refused) {
  wire::Control c;
  const uint8_t type = input->Byte();
  c.type = static_cast<wire::ControlType>(type < 224 ? type % 8 : type);
  const uint8_t code = input->Byte();
  c.code = static_cast<wire::NakCode>(code < 224 && type % 8 != 5 ? 0 : code % 6);
  const uint8_t base = input->Byte();
  const auto number = static_cast<uint32_t>(input->Number(2));
  const uint32_t off = base >= 192 ? number : number % 4 - 1;
  c.rsn = (base % 2 != 0 ? refused : subject.sent_rsn()) + (base % 8 == 0 ? 0 : off);
  c.value = static_cast<uint32_t>(input->Number(2));
  return c;
}

void Run(Input input) {
  SubjectOptions options;
  const uint8_t bits = input.Byte();
  options.session = (bits & 3) != 0 ? engine::OwnSession((bits & 1) != 0, (bits & 4) != 0)
                                    : engine::ForeignSession(true);
  options.rnr_retry = (bits >> 4) & 7;
  const bool crc = options.session.crc;
  Subject subject(options);
  engine::Chunks chunks((bits & 8) != 0 ? 1 : 0);
  const auto drain = [&] { subject.Drain(SIZE_MAX, true); };
  // Two Sends, of which the receiver has room for one; the second is refused.
  subject.PostReceive(100, false);
  uint32_t msn = 1;
  const auto send = [&] {
    return engine::MakeFpdu(engine::SendHeader(msn++), engine::Bytes(8), crc);
  };
  subject.Feed(send(), &chunks);
  if ((bits & 128) != 0) subject.Feed(send(), &chunks);
  drain();
  const uint32_t refused = subject.TakeRefused();
  for (const Opcode op : {Opcode::kSend, Opcode::kRead, Opcode::kWriteWithImm, Opcode::kFetchAdd}) {
    subject.PostSend(op, 200, SendFlags::kNone, 2);
  }
  drain();
  for (int i = 0; i < kMostMessages && !input.empty(); ++i) {
    const wire::Control c = Next(&input, subject, refused);
    const uint8_t extra = input.Byte();
    const uint32_t text = c.type == wire::ControlType::kNak || extra >= 240 ? extra % 140 : 0;
    CheckCodec(c, text);
    const engine::Bytes fpdu = engine::MakeControlFpdu(c, std::string(text, '\xe4'), crc);
    subject.Feed(fpdu, &chunks);
    const uint8_t then = input.Byte();
    if ((then & 1) != 0) subject.Move(engine::Nanos{then} * 10'000'000);
    if ((then & 2) != 0) drain();
    if ((then & 4) != 0) subject.PostReceive(100, true);
    if ((then & 8) != 0) subject.PostSend(Opcode::kSend, then, SendFlags::kSignaled, 1);
  }
  subject.Finish();
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
