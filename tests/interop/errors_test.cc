// SPDX-License-Identifier: Apache-2.0
// What a plain iWARP peer can do wrong, and what it can say that we did wrong: the right Terminate,
// the right completion, and a process that goes on. tests/interop/run has the same with the
// kernel's siw, as far as siw can be made to err; and it has these with siw as the end that judges:
// with VERBENA_INTEROP_DEVICE=verbs:siw0 every row is played to siw, and its column applies.
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "fallback/wire/rdmap.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/interop/scripted_peer.h"
#include "tests/interop/target.h"
#include "tests/interop/violations.h"

namespace verbena::interop {
namespace {

using engine::MakeFpdu;
using engine::operator+;
using engine::SendHeader;
using engine::UntaggedOf;
using engine::WriteHeader;
using wire::Opcode;

std::string NameOf(Role role) { return role == Role::kCalls ? "Caller" : "Listener"; }
constexpr Role kRoles[] = {Role::kAccepts, Role::kCalls};

class PeerErrs : public testing::TestWithParam<std::tuple<Violation, Role>> {};

TEST_P(PeerErrs, IsToldAndTheProcessGoesOn) {
  // Expect: a Terminate that is the last that it hears; an event that says whose fault it is; the
  // receive is not lost; and the next connection works.
  const auto& [v, role] = GetParam();
  Target target(role);
  auto peer = target.Connect(v.crc);
  target.PostReceive(9);
  const Bytes wrong = v.bytes(target);
  peer->Say(MakeFpdu(WriteHeader(0, 0), {}, v.crc) + wrong);
  WorkCompletion wc;
  if (SiwJudges()) {
    if (v.siw.has_value()) {
      const auto terminate = peer->ReadTerminateBody();
      ASSERT_TRUE(terminate.has_value() || v.siw_may_say_nothing);
      if (terminate.has_value()) {
        EXPECT_THAT(SiwTerminates(*v.siw, wrong), testing::Contains(*terminate));
      }
    } else {
      const auto answer = peer->ReadFpdu();
      EXPECT_TRUE(answer.has_value() && answer->opcode() == Opcode::kReadResponse);
      peer->FinishSending();
    }
    EXPECT_TRUE(target.Await(EventType::kDisconnected));
    EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), v.siw_receive);
  } else {
    EXPECT_EQ(peer->ReadTerminate(), v.terminate);
    if (role == Role::kAccepts) {
      EXPECT_EQ(target.NextEvent(), EventType::kEstablished);
    }
    EXPECT_EQ(target.NextEvent(), v.event);
    EXPECT_EQ(target.NextEvent(), EventType::kDisconnected);
    EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), v.receive);
    EXPECT_FALSE(target.end.qp.cause().ok());
  }
  EXPECT_EQ(wc.id, 9u);
  EXPECT_EQ(target.end.qp.state(), QpState::kErr);
  peer->HangUp();
  target.ExpectToWorkAgain();
}

INSTANTIATE_TEST_SUITE_P(
    Rules, PeerErrs, testing::Combine(testing::ValuesIn(Violations()), testing::ValuesIn(kRoles)),
    [](const auto& i) {
      return std::get<Violation>(i.param).name + NameOf(std::get<Role>(i.param));
    });

TEST(PeerInvalidates, AKeyThatIsNone) {
  // Expect: the receive fails, and the connection with it.
  Target target;
  auto peer = target.Connect(false);
  for (const uint64_t id : {9, 10}) {
    ASSERT_TRUE(
        target.end.qp.PostReceive({.local = target.end.region.slice(0, 16), .id = id}).ok());
  }
  wire::UntaggedHeader h = SendHeader(1);
  h.rdmap = wire::RdmapByte(Opcode::kSendInvalidate);
  h.ulp = 0xdead00;
  peer->Say(MakeFpdu(h, Bytes(8)));
  WorkCompletion wc;
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc),
            SiwJudges() ? WcStatus::kRemoteInvalidRequest : WcStatus::kLocalProtectionError);
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), WcStatus::kFlushed);
  // siw has the code in the wrong type (siw_qp_rx.c siw_rdmap_complete).
  constexpr wire::TerminateError kOfSiw{wire::kLayerRdmap, wire::kRemoteOp, 9};
  EXPECT_EQ(peer->ReadTerminate(), SiwJudges() ? kOfSiw : wire::error::kCannotInvalidate);
}

TEST(FirstWord, MayBeWrong) {
  // RFC 5044 7.1.2 has the accepting end wait for the first FPDU; this one is of no known opcode.
  // Expect: a Terminate all the same, and no kEstablished.
  Target target;
  auto peer = target.Connect(false);
  peer->Say(MakeFpdu(UntaggedOf(static_cast<Opcode>(0xd), 1), Bytes(8)));
  EXPECT_EQ(peer->ReadTerminate(), wire::error::kUnexpectedOpcode);
  EXPECT_EQ(target.NextEvent(), EventType::kQpRequestError);
}

// Where it cuts an FPDU off, how it goes, and to whom.
class PeerLeaves : public testing::TestWithParam<std::tuple<size_t, bool, Role>> {
 protected:
  const size_t size_ = std::get<0>(GetParam());
  const bool reset_ = std::get<1>(GetParam());
  // Says the first bytes of `fpdu`, and no more for ever.
  void Leave(ScriptedPeer& peer, const Bytes& fpdu) const {
    peer.Say(std::span(fpdu).first(size_));
    if (reset_) return peer.HangUp(true);
    peer.FinishSending();
    EXPECT_TRUE(peer.AtEnd());
  }
};

TEST_P(PeerLeaves, InTheMiddleOfAMessage) {
  // Expect: our side ends it, too; the receive is flushed; the cause says what was open.
  Target target(std::get<Role>(GetParam()));
  auto peer = target.Connect(false);
  target.PostReceive(9);
  peer->Say(MakeFpdu(WriteHeader(0, 0)));
  Leave(*peer, MakeFpdu(SendHeader(1), Bytes(16)));
  WorkCompletion wc;
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), WcStatus::kFlushed);
  EXPECT_TRUE(target.Await(EventType::kDisconnected));
  if (!SiwJudges()) {  // a device does not say
    EXPECT_TRUE(absl::IsUnavailable(target.end.qp.cause())) << target.end.qp.cause();
  }
  target.ExpectToWorkAgain();
}

TEST_P(PeerLeaves, InTheMiddleOfAnAnswer) {
  // Two reads are open. Expect: flushed, as nobody refused them; of a stream that broke the older
  // tells. A device cannot say why (docs/semantics.md, refusal_reasons).
  Target target(std::get<Role>(GetParam()));
  auto peer = target.Connect(false);
  peer->Say(MakeFpdu(WriteHeader(0, 0)));
  target.PostTwoReads();
  const auto asked = peer->ReadFpdu();
  ASSERT_TRUE(asked.has_value() && asked->opcode() == Opcode::kReadRequest);
  Leave(*peer, Answer(wire::Load<wire::ReadRequest>(asked->payload.data()), 8));
  const std::string older = SiwJudges() ? "REM_OP_ERR" : reset_ ? "RETRY_EXC_ERR" : "WR_FLUSH_ERR";
  EXPECT_EQ(target.SendStatuses(2), older + " WR_FLUSH_ERR");
  target.ExpectToWorkAgain();
}

// In the length, in either header, behind the answer's payload, in either pad or CRC.
INSTANTIATE_TEST_SUITE_P(Rules, PeerLeaves,
                         testing::Combine(testing::Values(1, 10, 20, 24, 27), testing::Bool(),
                                          testing::ValuesIn(kRoles)),
                         [](const auto& i) {
                           return std::to_string(std::get<0>(i.param)) +
                                  (std::get<1>(i.param) ? "Reset" : "Ended") +
                                  NameOf(std::get<Role>(i.param));
                         });

TEST(PeerCloses, AndIsLetGo) {
  // A clean half-close by either end. Expect: ours follows, and nobody is to blame.
  Target target;
  auto peer = target.Connect(false);
  peer->FinishSending();
  EXPECT_TRUE(peer->AtEnd());
  EXPECT_TRUE(target.end.qp.WaitUntilDisconnected(kLong).ok());
  EXPECT_TRUE(target.end.qp.cause().ok()) << target.end.qp.cause();

  auto second = target.Connect(false);
  second->Say(MakeFpdu(WriteHeader(0, 0)));  // it has spoken
  ASSERT_TRUE(target.end.qp.Disconnect().ok());
  EXPECT_TRUE(second->AtEnd()) << "no word of ours goes to a plain peer";
}

class PeerAnswersWrong : public testing::TestWithParam<std::tuple<WrongAnswer, Role>> {};

TEST_P(PeerAnswersWrong, NothingGoesBeyondTheBuffer) {
  // Two reads are open, and the first is answered.
  // Expect: the statuses; the bytes around the buffer stay; the connection is over, and the next
  // one works.
  const auto& [a, role] = GetParam();
  Target target(role);
  auto peer = target.Connect(a.crc);
  target.PostReceive(9);
  peer->Say(MakeFpdu(WriteHeader(0, 0), {}, a.crc));
  const std::byte before = target.end.memory[8];
  target.PostTwoReads();
  const auto asked = peer->ReadFpdu();
  ASSERT_TRUE(asked.has_value() && asked->opcode() == Opcode::kReadRequest);
  const Bytes wrong = a.bytes(wire::Load<wire::ReadRequest>(asked->payload.data()));
  peer->Say(wrong);
  EXPECT_EQ(target.SendStatuses(2), SiwJudges() ? "REM_OP_ERR WR_FLUSH_ERR" : a.statuses);
  if (SiwJudges()) {
    const auto terminate = peer->ReadTerminateBody();
    ASSERT_TRUE(terminate.has_value());
    EXPECT_THAT(SiwTerminates(a.siw, wrong), testing::Contains(*terminate));
  } else {
    EXPECT_EQ(peer->ReadTerminate(), a.terminate);
  }
  EXPECT_EQ(target.end.memory[8], before);
  peer->HangUp();
  target.ExpectToWorkAgain();
}

INSTANTIATE_TEST_SUITE_P(Rules, PeerAnswersWrong,
                         testing::Combine(testing::ValuesIn(WrongAnswers()),
                                          testing::ValuesIn(kRoles)),
                         [](const auto& i) {
                           return std::get<WrongAnswer>(i.param).name +
                                  NameOf(std::get<Role>(i.param));
                         });

// What the peer says of a read of ours.
struct Complaint {
  std::string name;
  std::function<Bytes(const Target&)> body;
  WcStatus status;
  std::string text = "";  // of it, in the cause
};
class PeerComplains : public testing::TestWithParam<Complaint> {};

TEST_P(PeerComplains, TheReadFails) {
  // Two reads are open. Expect: the older gets the status, the other is flushed; the cause has the
  // peer's words.
  Target target;
  auto peer = target.Connect(false);
  peer->Say(MakeFpdu(WriteHeader(0, 0)));
  target.PostTwoReads();
  ASSERT_TRUE(peer->ReadFpdu().has_value());
  wire::UntaggedHeader h = UntaggedOf(Opcode::kTerminate, 1);
  h.queue_number = wire::kTerminateQueue;
  peer->Say(MakeFpdu(h, GetParam().body(target)));
  EXPECT_EQ(target.end.AwaitSend(kLong), GetParam().status);
  EXPECT_EQ(target.end.AwaitSend(kLong), WcStatus::kFlushed);
  EXPECT_THAT(target.end.qp.cause().message(), testing::HasSubstr(GetParam().text));
  EXPECT_TRUE(peer->AtEnd());
}

Complaint OfRfc(const char* name, int layer_type, int code, WcStatus status, const char* text) {
  return {name,
          [=](auto&) {
            return Bytes{std::byte(layer_type), std::byte(code), {}, {}};
          },
          status, text};
}
// What siw says of the rows above, as tests/interop/matrix has heard it.
std::vector<Complaint> OfSiw() {
  std::vector<Complaint> all;
  for (const Violation& v : Violations()) {
    if (!v.siw.has_value()) continue;
    all.push_back({v.name, [&v](auto& t) { return SiwTerminates(*v.siw, v.bytes(t)).back(); },
                   v.siw->told, v.siw->text});
  }
  return all;
}
const auto kNameOfComplaint = [](const auto& i) { return i.param.name; };

INSTANTIATE_TEST_SUITE_P(
    Rfc, PeerComplains,
    testing::Values(OfRfc("Stag", 0x01, 0, WcStatus::kRemoteAccessError, "invalid STag"),
                    OfRfc("Bounds", 0x01, 1, WcStatus::kRemoteAccessError, "base or bounds"),
                    OfRfc("NoBuffer", 0x12, 2, WcStatus::kRnrRetryExceeded, "no receive buffer"),
                    OfRfc("Catastrophe", 0x10, 0, WcStatus::kRemoteOperationError,
                          "DDP: local catastrophic"),
                    OfRfc("Crc", 0x20, 2, WcStatus::kRetryExceeded, "CRC")),
    kNameOfComplaint);
INSTANTIATE_TEST_SUITE_P(Siw, PeerComplains, testing::ValuesIn(OfSiw()), kNameOfComplaint);

}  // namespace
}  // namespace verbena::interop
