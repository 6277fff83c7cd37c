// SPDX-License-Identifier: Apache-2.0
// Setting up with devices that are not here: scripted peers that keep the rules of their drivers'
// sources (Linux 6.1: drivers/infiniband/hw/irdma/cm.c, hw/cxgb4/cm.c). The hardware is untested.
#include <memory>
#include <string>

#include "fallback/queue_pair.h"
#include "fallback/wire/extension.h"
#include "fallback/wire/rdmap.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/interop/end.h"
#include "tests/interop/scripted_peer.h"
#include "transport/address.h"

namespace verbena::interop {
namespace {

using engine::operator+;
using testing::HasSubstr;
using testing::StartsWith;
using wire::MpaFrame;
using wire::Opcode;

constexpr absl::Duration kLong = absl::Seconds(20);

MpaFrame Reply(const Said& request) {
  MpaFrame f;
  f.reply = true;
  f.revision = request.frame.revision;
  f.enhanced = request.frame.enhanced;
  f.ird = f.ord = 16;
  return f;
}

Bytes ReadResponse(const wire::ReadRequest& request, std::span<const std::byte> data, bool crc) {
  wire::TaggedHeader h = engine::WriteHeader(request.sink_stag, request.sink_offset);
  h.rdmap = wire::RdmapByte(Opcode::kReadResponse);
  return engine::MakeFpdu(h, data, crc);
}

Bytes ReadRequest(uint32_t msn, const wire::ReadRequest& body, bool crc = false) {
  return engine::MakeFpdu(engine::UntaggedOf(Opcode::kReadRequest, msn), wire::AsBytes(body), crc);
}

provider::Address AddressOf(const ScriptedListener& listener) {
  const auto where = Check(provider::ParseHostPort(listener.address()), "address");
  return Check(provider::Lookup(where, false), "address").front();
}

// Verbena over TCP calls the script.
class Calling : public testing::Test {
 protected:
  Calling() : end_({.provider = "tcp", .initiator = true, .address = listener_.address()}) {
    end_.qp =
        Check(end_.pd.CreateQueuePair({.send_cq = &end_.send_cq, .receive_cq = &end_.receive_cq}),
              "queue pair");
  }
  void Call(const ConnectParameters& parameters = {.private_data = "hello"}) {
    auto path = Check(end_.context.Resolve(listener_.address()), "resolve");
    Check(path.StartConnect(end_.qp, parameters), "connect");
  }
  Event Outcome() {
    auto event = end_.context.events().Next(kLong);
    EXPECT_TRUE(event.ok()) << event.status();
    return event.ok() ? *event : Event();
  }
  void Write(uint64_t id) {
    EXPECT_TRUE(end_.qp
                    .PostSend({.opcode = verbena::Opcode::kWrite,
                               .local = end_.region.slice(0, 8),
                               .remote = {0x1000, 7},
                               .id = id})
                    .ok());
  }

  ScriptedListener listener_;
  End end_;
};

TEST_F(Calling, WhoKnowsRevisionOneAlone) {
  // cxgb4 with mpa_rev=1 (process_mpa_request: "MPA version mismatch") aborts the connection.
  // Expect: a second call in revision 1, with the same private data and no enhanced words; once
  // it is accepted no ready frame but the application's first message.
  Call();
  {
    ScriptedPeer first(listener_.Accept());
    EXPECT_EQ(first.ReadFrame().frame.revision, 2);
    first.HangUp(true);
  }
  ScriptedPeer second(listener_.Accept());
  const Said request = second.ReadFrame();
  EXPECT_EQ(request.frame.revision, 1);
  EXPECT_FALSE(request.frame.enhanced || request.frame.crc || request.frame.markers);
  EXPECT_THAT(request.private_data, StartsWith("hello"));
  second.Say(Reply(request), "welcome");
  const Event event = Outcome();
  EXPECT_EQ(event.type, EventType::kEstablished) << event.status;
  EXPECT_EQ(event.private_data, "welcome");
  EXPECT_FALSE(end_.qp.connection().own_peer);
  Write(1);
  const auto fpdu = second.ReadFpdu();
  ASSERT_TRUE(fpdu.has_value());
  EXPECT_EQ(fpdu->opcode(), Opcode::kWrite);
  EXPECT_EQ(fpdu->payload.size(), 8u);
}

TEST_F(Calling, WhoEndsTheStreamOnRevisionTwo) {
  // The same with a plain end of stream, as siw's (siw_proc_mpareq).
  Call();
  {
    ScriptedPeer first(listener_.Accept());
    first.ReadFrame();
  }
  ScriptedPeer second(listener_.Accept());
  EXPECT_EQ(second.ReadFrame().frame.revision, 1);
  second.HangUp();
  // Expect: there is no third call.
  const Event event = Outcome();
  EXPECT_EQ(event.type, EventType::kUnreachable);
  EXPECT_THAT(event.status.message(), HasSubstr("closed the connection during the hand-shake"));
}

TEST_F(Calling, EachAddressIsCalledInRevisionTwo) {
  // A name with two addresses. The first hangs up on revision 2, and is not there any more when it
  // is called again.
  // Expect: the second hears revision 2.
  auto* qp = dynamic_cast<fallback::QueuePair*>(end_.qp.impl());
  ASSERT_NE(qp, nullptr);
  auto leaving = std::make_unique<ScriptedListener>();
  ASSERT_TRUE(qp->StartConnect({AddressOf(*leaving), AddressOf(listener_)}, {}, {}, {}).ok());
  {
    ScriptedPeer first(leaving->Accept());
    EXPECT_EQ(first.ReadFrame().frame.revision, 2);
    leaving.reset();
  }
  ScriptedPeer second(listener_.Accept());
  EXPECT_EQ(second.ReadFrame().frame.revision, 2);
}

TEST_F(Calling, WhoRejectsRevisionOneAsAVerbenaEnd) {
  // The first call was cut off on its way; the listener, Verbena itself, wants no revision 1.
  // Expect: what happened to the first call is the outcome, not a reject that nobody meant.
  Call();
  {
    ScriptedPeer first(listener_.Accept());
    first.ReadFrame();
    first.HangUp(true);
  }
  ScriptedPeer second(listener_.Accept());
  MpaFrame reply = Reply(second.ReadFrame());
  reply.rejected = true;
  Bytes record(sizeof(wire::RecordBytes));
  wire::AppendRecord({.role = wire::kRoleReply, .features = wire::kAcknowledge}, record);
  second.Say(reply, {reinterpret_cast<const char*>(record.data()), record.size()});
  const Event event = Outcome();
  EXPECT_EQ(event.type, EventType::kUnreachable);
  EXPECT_THAT(event.status.message(), HasSubstr("closed the connection during the hand-shake"));
}

TEST_F(Calling, Irdma) {
  // irdma_negotiate_mpa_v2_ird_ord: refuses a revision 2 without A, and without C or D. Of both it
  // takes the Read.
  // Expect: the Request passes; the first FPDU is the Read of nothing, and only then the Write.
  Call();
  ScriptedPeer irdma(listener_.Accept());
  const Said request = irdma.ReadFrame();
  EXPECT_TRUE(request.frame.peer_to_peer);
  EXPECT_TRUE(request.frame.rtr_read || request.frame.rtr_write);
  EXPECT_GT(request.frame.ird, 0);  // it has to answer nothing, but the rule is for both ends
  MpaFrame reply = Reply(request);
  reply.peer_to_peer = reply.rtr_read = true;
  irdma.Say(reply);
  EXPECT_EQ(Outcome().type, EventType::kEstablished);
  Write(1);
  const auto ready = irdma.ReadFpdu();
  ASSERT_TRUE(ready.has_value());
  ASSERT_EQ(ready->opcode(), Opcode::kReadRequest);
  const auto asked = wire::Load<wire::ReadRequest>(ready->payload.data());
  EXPECT_EQ(uint32_t{asked.size}, 0u);
  irdma.Say(ReadResponse(asked, {}, false));
  const auto write = irdma.ReadFpdu();
  ASSERT_TRUE(write.has_value());
  EXPECT_EQ(write->opcode(), Opcode::kWrite);
  EXPECT_EQ(end_.AwaitSend(kLong), WcStatus::kSuccess);
}

TEST_F(Calling, Cxgb4WantsTheCrc) {
  // send_mpa_reply: crc_enabled is 1, so its Reply sets C whatever was asked for; its ready frame
  // is its own p2p_type, a Read. Expect: every FPDU has a CRC, and a wrong one of the peer's is
  // found.
  Call();
  ScriptedPeer cxgb4(listener_.Accept());
  MpaFrame reply = Reply(cxgb4.ReadFrame());
  reply.crc = reply.peer_to_peer = reply.rtr_read = true;
  reply.ird = reply.ord = 32;
  cxgb4.Say(reply);
  EXPECT_EQ(Outcome().type, EventType::kEstablished);
  const auto ready = cxgb4.ReadFpdu();
  ASSERT_TRUE(ready.has_value());
  EXPECT_EQ(ready->opcode(), Opcode::kReadRequest);
  EXPECT_TRUE(ready->crc_is_right);
  cxgb4.Say(ReadResponse(wire::Load<wire::ReadRequest>(ready->payload.data()), {}, true));
  Write(1);
  const auto write = cxgb4.ReadFpdu();
  ASSERT_TRUE(write.has_value());
  EXPECT_TRUE(write->crc_is_right);
  Bytes wrong = engine::MakeFpdu(engine::SendHeader(1), Bytes(8), true);
  wrong.back() ^= std::byte{1};
  EXPECT_TRUE(end_.qp.PostReceive({.local = end_.region.slice(0, 8), .id = 9}).ok());
  cxgb4.Say(wrong);
  EXPECT_EQ(cxgb4.ReadTerminate(), wire::error::kCrc);
  WorkCompletion wc;
  EXPECT_EQ(end_.AwaitReceive(kLong, &wc), WcStatus::kFlushed);
}

TEST_F(Calling, WhoWantsMoreReadsThanThereArePlaces) {
  // RFC 6581 9.1. Expect: a Terminate that says so, the end of the stream, a connect that says so.
  Call();
  ScriptedPeer peer(listener_.Accept());
  MpaFrame reply = Reply(peer.ReadFrame());
  reply.ord = 300;
  peer.Say(reply);
  EXPECT_EQ(peer.ReadTerminate(), wire::error::kInsufficientIrd);
  const Event event = Outcome();
  EXPECT_EQ(event.type, EventType::kUnreachable);
  EXPECT_THAT(event.status.message(), HasSubstr("300 reads in flight"));
}

TEST_F(Calling, WhoWantsMoreReadsThanOffered) {
  // siw raises its ORD to what it likes (siw_accept, relaxed_ird_negotiation).
  // Expect: as there are places for that many, they are served.
  Call({.responder_resources = 2});
  ScriptedPeer peer(listener_.Accept());
  MpaFrame reply = Reply(peer.ReadFrame());
  reply.ord = 8;
  peer.Say(reply);
  EXPECT_EQ(Outcome().type, EventType::kEstablished);
  Bytes all;
  for (uint32_t i = 1; i <= 8; ++i) {
    wire::ReadRequest body;
    body.sink_stag = i;
    body.size = 8;
    body.source_stag = end_.region.remote_key();
    body.source_offset = end_.region.address();
    all = std::move(all) + ReadRequest(i, body);
  }
  peer.Say(all);
  for (uint32_t i = 1; i <= 8; ++i) {
    const auto answer = peer.ReadFpdu();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->opcode(), Opcode::kReadResponse);
    EXPECT_EQ(uint32_t{answer->tagged.stag}, i);
  }
}

TEST_F(Calling, WhoNamesNoReadyFrameOnOffer) {
  // A Send was not on offer (RFC 6581 9.2).
  Call();
  ScriptedPeer peer(listener_.Accept());
  MpaFrame reply = Reply(peer.ReadFrame());
  reply.peer_to_peer = reply.rtr_send = true;
  peer.Say(reply);
  EXPECT_EQ(peer.ReadTerminate(), wire::error::kNoMatchingRtr);
  EXPECT_EQ(Outcome().type, EventType::kUnreachable);
}

TEST_F(Calling, RejectsWithAReason) {
  // siw_reject: the reason is the private data.
  Call();
  ScriptedPeer peer(listener_.Accept());
  MpaFrame reply = Reply(peer.ReadFrame());
  reply.rejected = true;
  peer.Say(reply, "no room");
  const Event event = Outcome();
  EXPECT_EQ(event.type, EventType::kRejected);
  EXPECT_EQ(event.private_data, "no room");
}

// The script calls Verbena over TCP.
class Called : public testing::Test {
 protected:
  Called() : end_({.provider = "tcp", .address = "127.0.0.1:0"}) {
    listener_ = Check(end_.context.Listen("127.0.0.1:0"), "listen");
  }
  // Accepts what comes, with a queue pair that grants peers `access`.
  void Accept(Access access = Access::kLocalWrite) {
    end_.qp =
        Check(end_.pd.CreateQueuePair(
                  {.send_cq = &end_.send_cq, .receive_cq = &end_.receive_cq, .access = access}),
              "queue pair");
    auto request = Check(listener_.Next(kLong), "request");
    EXPECT_EQ(request.private_data(), "hello");
    Check(request.Accept(end_.qp, {.private_data = "welcome"}), "accept");
  }
  void Send(uint64_t id) {
    EXPECT_TRUE(end_.qp.PostSend({.local = end_.region.slice(0, 8), .id = id}).ok());
  }
  EventType NextEvent() {
    auto event = end_.context.events().Next(kLong);
    EXPECT_TRUE(event.ok()) << event.status();
    return event.ok() ? event->type : EventType::kDeviceFatal;
  }

  End end_;
  Listener listener_;
};

TEST_F(Called, Irdma) {
  // It offers A and the Read; refuses a Reply without A, with another kind, with an IRD of 0, or
  // with more ORD than its IRD. The accepting program sends at once.
  // Expect: nothing comes before the Read of nothing; then its answer, and the Send.
  ScriptedPeer irdma(listener_.address());
  MpaFrame request;
  request.enhanced = request.peer_to_peer = request.rtr_read = true;
  request.ird = 4;
  request.ord = 0;
  irdma.Say(request, "hello");
  Accept();
  Send(1);
  const Said reply = irdma.ReadFrame();
  EXPECT_EQ(reply.private_data, "welcome");
  EXPECT_TRUE(reply.frame.peer_to_peer && reply.frame.rtr_read);
  EXPECT_FALSE(reply.frame.rtr_write || reply.frame.rtr_send);
  EXPECT_GE(reply.frame.ird, 1);
  EXPECT_LE(reply.frame.ord, 4);
  EXPECT_TRUE(irdma.Silent());
  irdma.Say(ReadRequest(1, {}));
  const auto answer = irdma.ReadFpdu();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->opcode(), Opcode::kReadResponse);
  const auto send = irdma.ReadFpdu();
  ASSERT_TRUE(send.has_value());
  EXPECT_EQ(send->opcode(), Opcode::kSend);
  EXPECT_EQ(NextEvent(), EventType::kEstablished);
}

TEST_F(Called, Cxgb4InRevisionOne) {
  // build_rtr_msg: with peer2peer its ready frame, a Read of nothing from STag 1, comes in
  // revision 1 as well, where nobody agreed on one. C is always set.
  // Expect: answered, although peers may not read here; it is no request of theirs.
  ScriptedPeer cxgb4(listener_.address());
  MpaFrame request;
  request.revision = 1;
  request.crc = true;
  cxgb4.Say(request, "hello");
  Accept();
  Send(1);
  const Said reply = cxgb4.ReadFrame();
  EXPECT_EQ(reply.frame.revision, 1);
  EXPECT_TRUE(reply.frame.crc);
  EXPECT_EQ(reply.private_data, "welcome");
  EXPECT_TRUE(cxgb4.Silent());
  wire::ReadRequest nothing;
  nothing.sink_stag = nothing.source_stag = 1;
  nothing.sink_offset = nothing.source_offset = 1;
  cxgb4.Say(ReadRequest(1, nothing, true));
  const auto answer = cxgb4.ReadFpdu();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->opcode(), Opcode::kReadResponse);
  EXPECT_TRUE(answer->crc_is_right);
  const auto send = cxgb4.ReadFpdu();
  ASSERT_TRUE(send.has_value());
  EXPECT_EQ(send->opcode(), Opcode::kSend);
}

TEST_F(Called, AVerbenaEndInRevisionOne) {
  // The first attempt of a Verbena caller was cut off on its way, so it calls again in revision 1.
  // Expect: a reject with the reason, not a connection without acknowledgements that nobody wanted.
  ScriptedPeer caller(listener_.address());
  Bytes record(sizeof(wire::RecordBytes));
  wire::AppendRecord({.features = wire::kAcknowledge}, record);
  MpaFrame request;
  request.revision = 1;
  caller.Say(request, {reinterpret_cast<const char*>(record.data()), record.size()});
  const Said reply = caller.ReadFrame();
  EXPECT_TRUE(reply.frame.rejected);
  EXPECT_THAT(reply.private_data, HasSubstr("connect again"));
}

}  // namespace
}  // namespace verbena::interop
