// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/target.h"

#include <cstdlib>
#include <future>

#include "gtest/gtest.h"

namespace verbena::interop {

namespace {

std::string Judge() {
  const char* device = std::getenv("VERBENA_INTEROP_DEVICE");
  return device == nullptr ? "tcp" : device;
}
std::string Host() { return SiwJudges() ? std::getenv("VERBENA_SOFT_RDMA_ADDRESS") : "127.0.0.1"; }

wire::MpaFrame Enhanced(bool reply, bool crc) {
  wire::MpaFrame frame;
  frame.reply = reply;
  frame.enhanced = true;
  frame.ird = frame.ord = 1;
  frame.crc = crc;
  return frame;
}

}  // namespace

bool SiwJudges() { return Judge() != "tcp"; }

Target::Target(Role chosen)
    : role(chosen),
      end({.provider = Judge()}),
      write_only(Check(end.pd.Register(spare, Access::kLocalWrite | Access::kRemoteWrite), "mr")),
      read_only(Check(end.pd.Register(spare, Access::kRemoteRead), "mr")) {
  if (role == Role::kCalls) {
    script.emplace(Host());
  } else {
    listener = Check(end.context.Listen(Host() + ":0"), "listen");
  }
}

std::unique_ptr<ScriptedPeer> Target::Connect(bool crc) {
  end.qp =
      Check(end.pd.CreateQueuePair({.send_cq = &end.send_cq, .receive_cq = &end.receive_cq}), "qp");
  return role == Role::kCalls ? LetTargetCall(crc) : CallTarget(crc);
}

std::unique_ptr<ScriptedPeer> Target::CallTarget(bool crc) {
  auto peer = std::make_unique<ScriptedPeer>(listener->address());
  peer->Say(Enhanced(false, crc));
  auto asked = Check(listener->Next(kLong), "request");
  Check(asked.Accept(end.qp), "accept");
  EXPECT_FALSE(peer->ReadFrame().frame.rejected);
  return peer;
}

std::unique_ptr<ScriptedPeer> Target::LetTargetCall(bool crc) {
  auto resolving =
      std::async(std::launch::async, [this] { return end.context.Resolve(script->address()); });
  if (SiwJudges()) {  // a device's caller asks over TCP first; who speaks plain iWARP hangs up
    EXPECT_TRUE(ScriptedPeer(script->Accept()).ReadFrame().frame.ask);
  }
  auto path = Check(resolving.get(), "resolve");
  Check(path.StartConnect(end.qp), "connect");
  auto peer = std::make_unique<ScriptedPeer>(script->Accept());
  EXPECT_FALSE(peer->ReadFrame().frame.ask);
  peer->Say(Enhanced(true, crc));
  EXPECT_TRUE(Await(EventType::kEstablished));
  // The end that is called waits for the first FPDU (RFC 5044 7.1.2).
  const PostResult posted = end.qp.PostSend(
      {.opcode = Opcode::kWrite, .local = end.region.slice(0, 8), .remote = {0x1000, 7}});
  EXPECT_TRUE(posted.ok()) << PostErrorText(posted.error);
  const auto first = peer->ReadFpdu();
  EXPECT_TRUE(first.has_value() && first->opcode() == wire::Opcode::kWrite);
  EXPECT_TRUE(!crc || !first.has_value() || first->crc_is_right);
  EXPECT_EQ(end.AwaitSend(kLong), WcStatus::kSuccess);
  return peer;
}

void Target::PostReceive(uint64_t id) {
  EXPECT_TRUE(end.qp.PostReceive({.local = end.region.slice(0, 16), .id = id}).ok());
}

void Target::PostTwoReads() {
  for (const uint64_t id : {1, 2}) {
    EXPECT_TRUE(end.qp
                    .PostSend({.opcode = Opcode::kRead,
                               .local = end.region.slice(0, 8),
                               .remote = {0x1000, 7},
                               .id = id})
                    .ok());
  }
}

std::string Target::SendStatuses(int n) {
  std::string statuses;
  for (int i = 0; i < n; ++i) {
    statuses += std::string(i == 0 ? "" : " ") + WcStatusName(end.AwaitSend(kLong));
  }
  return statuses;
}

void Target::ExpectToWorkAgain() {
  end.Disconnect();
  auto peer = Connect(false);
  PostReceive(10);
  peer->Say(engine::MakeFpdu(engine::SendHeader(1), Bytes(8, std::byte{0x77})));
  WorkCompletion wc;
  EXPECT_EQ(end.AwaitReceive(kLong, &wc), WcStatus::kSuccess);
  EXPECT_EQ(wc.id, 10u);
  EXPECT_EQ(end.memory[7], std::byte{0x77});
}

EventType Target::NextEvent() {
  auto event = end.context.events().Next(kLong);
  EXPECT_TRUE(event.ok()) << event.status();
  return event.ok() ? event->type : EventType::kDeviceFatal;
}

bool Target::Await(EventType type) {
  for (;;) {
    auto event = end.context.events().Next(kLong);
    EXPECT_TRUE(event.ok()) << event.status();
    if (!event.ok() || event->type == type) return event.ok();
    if (event->type == EventType::kUnreachable || event->type == EventType::kRejected) {
      ADD_FAILURE() << event->status;
      return false;
    }
  }
}

}  // namespace verbena::interop
