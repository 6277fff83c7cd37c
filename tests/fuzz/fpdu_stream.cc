// SPDX-License-Identifier: Apache-2.0
// A stream of FPDUs into a live queue pair whose application posts, polls and deregisters. The
// input is a session and a program of steps; what must hold is in subject.h.
#include "absl/status/status.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/peer.h"
#include "tests/fuzz/subject.h"

namespace verbena::fuzz {
namespace {

constexpr int kMostSteps = 64;  // more tells nothing new, and takes longer

SubjectOptions Options(uint64_t bits) {
  SubjectOptions o;
  engine::Session& s = o.session;
  const auto take = [&bits](int n) {
    const uint64_t value = bits & ((1u << n) - 1);
    bits >>= n;
    return static_cast<uint32_t>(value);
  };
  static constexpr uint32_t kMss[] = {1460, 536, 88, 9000};
  s.initiator = take(1) != 0;
  s.crc = take(1) != 0;
  s.ready_frame = static_cast<engine::ReadyFrame>(take(2));
  s.mss = kMss[take(2)];
  if (take(2) != 0) {  // an own peer
    s.features.features = take(1) != 0 ? ~0u : take(5);
    s.features.features &=
        wire::kAcknowledge | wire::kRnr | wire::kImmediate | wire::kAtomics | wire::kLargeFpdu;
    if (!s.features.has(wire::kAcknowledge)) s.features.features &= ~wire::kRnr;
    if (s.features.has(wire::kLargeFpdu)) s.features.max_payload = (1 + take(6) % 60) * 1024;
  }
  s.ord = take(3);
  s.ird = 1 + take(3);
  o.signal_all = take(1) != 0;
  o.shared_receives = take(2) == 3;
  o.rnr_retry = static_cast<uint8_t>(take(3));
  s.confirm = !s.features.has(wire::kAcknowledge) && take(1) != 0;
  return o;
}

// What the application does; false: this kind of step is the peer's.
bool RunApplication(Subject* subject, const Step& s) {
  static constexpr Area kMayDie[] = {Area::kWritable, Area::kReadable, Area::kAtomic,
                                     Area::kPrivate, Area::kSinks};
  static constexpr QpState kStates[] = {QpState::kRts, QpState::kSqd, QpState::kErr};
  switch (s.kind >> 4) {
    case 8:
    case 9:
      subject->PostReceive(s.d % 6001, (s.a & 1) != 0);
      return true;
    case 10:
    case 11:
      subject->PostSend(static_cast<Opcode>(s.a % kOpcodeCount), s.d % 6001,
                        static_cast<SendFlags>(s.b & 15), s.b >> 6);
      return true;
    case 12:
      subject->Drain(s.a % 4 == 0 ? SIZE_MAX : s.c % 3000, (s.b & 1) == 0);
      return true;
    case 13:
      subject->Move(engine::Nanos{s.c} * 100'000);
      return true;
    case 14:
      if (s.a < 128) {
        subject->Kill(kMayDie[s.a % std::size(kMayDie)]);
      } else if (s.a < 224) {
        (void)subject->qp().Modify({.state = kStates[s.b % std::size(kStates)]});
      } else {
        (void)subject->qp().Modify({.access = static_cast<Access>(s.b & 31)});
      }
      subject->Poll();
      return true;
    case 15:
      if (s.a >= 192) {
        subject->qp().SendFailed(s.b % 2 != 0 ? EPIPE : EFAULT);
      } else if (s.a >= 128) {
        subject->qp().Fail(absl::InternalError("asked for"));
      } else if (s.a >= 96) {
        subject->End(s.b % 2 != 0 ? ECONNRESET : 0);
      }
      subject->Poll();
      return true;
    default:
      return false;
  }
}

void Run(Input input) {
  Subject subject(Options(input.Number(5)));
  const uint8_t pace = input.Byte();
  engine::Chunks chunks = pace < 64    ? engine::Chunks(0)
                          : pace < 96  ? engine::Chunks(1)
                          : pace < 128 ? engine::Chunks(7)
                                       : engine::Chunks::Seeded(pace);
  Peer peer(&subject);
  for (int i = 0; i < 4; ++i) subject.PostReceive(2000, i % 2 != 0);
  subject.Drain(SIZE_MAX, true);
  if (const engine::Bytes ready = peer.ReadyFrame(); !ready.empty()) subject.Feed(ready, &chunks);
  for (int i = 0; i < kMostSteps && !input.empty(); ++i) {
    const Step step(&input);
    if (RunApplication(&subject, step)) continue;
    subject.Feed(peer.Say(step), &chunks);
    if (step.more % 4 != 3) subject.Drain(SIZE_MAX, step.more % 2 == 0);
  }
  subject.Finish();
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
