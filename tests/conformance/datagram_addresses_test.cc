// SPDX-License-Identifier: Apache-2.0
// Unreliable datagrams: address handles (ibv_create_ah(3)) and groups (ibv_attach_mcast(3)).
#include <string>
#include <vector>

#include "tests/conformance/datagrams.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::Field;

TEST_P(Datagrams, MistakesInAddressesAreNamed) {
  // Text that is no address; a name; no destination; a group that is none.
  // Expect: InvalidArgument each.
  auto end = NewEnd(server());
  for (const char* wrong : {"", "10.0.0", "localhost", "10.0.0.1:7471", "0.0.0.0", "::"}) {
    EXPECT_THAT(end->pd.CreateAddressHandle({.address = wrong}),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << wrong;
  }
  for (const char* wrong : {"10.0.0.1", "::1", "all"}) {
    EXPECT_THAT(end->qp.AttachMulticast(wrong), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(end->qp.DetachMulticast("239.1.2.3"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(Datagrams, AnAddressHandleKeepsItsDomainOpen) {
  // A protection domain with an address handle.
  // Expect: it cannot be closed before that is.
  ProtectionDomain pd = Check(server().devices()[0]->AllocateProtectionDomain());
  AddressHandle handle = Check(pd.CreateAddressHandle({.address = server_address()}));
  EXPECT_EQ(handle.options().address, server_address());
  EXPECT_THAT(pd.Close(), StatusIs(absl::StatusCode::kFailedPrecondition));
  Check(handle.Close());
  Check(pd.Close());
}

TEST_P(Datagrams, OverIpv6AsWell) {
  // To the peer's other address.
  // Expect: it arrives behind an IPv6 header, from where it can be answered.
  const std::string there = ground().address6();
  if (there.empty()) GTEST_SKIP() << "network: it has IPv4 addresses only";
  Two two = MakeTwo();
  AddressHandle to_server = HandleTo(*two.client, there);
  Fill(two.client->bytes(0, 64), 6);
  ASSERT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 64), .id = 2, .to = To(to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 1}),
      Succeeded(1));
  EXPECT_THAT(two.server->bytes(kGrhBytes, 64), HasPattern(6));
  const Grh grh = Check(ReadGrh(two.server->bytes(0, kGrhBytes)));
  EXPECT_EQ(grh.destination, there);
  AddressHandle back = HandleTo(*two.server, grh.source);
  EXPECT_THAT(Deliver(*two.server, *two.client,
                      {.local = two.server->slice(0, 8), .id = 3, .to = To(back, *two.client)},
                      {.local = two.client->slice(0, 200), .id = 4}),
              Succeeded(4));
}

TEST_P(Datagrams, ThePacketsHaveTheTrafficClassOfTheHandle) {
  // Two handles of one peer, one of which asks for DSCP 8.
  // Expect: the receiver sees it in the header, and none with the other.
  Two two = MakeTwo();
  AddressHandle urgent = Check(
      two.client->pd.CreateAddressHandle({.address = server_address(), .traffic_class = 8 << 2}));
  for (const AddressHandle* handle : {&urgent, &two.to_server}) {
    ASSERT_THAT(
        Deliver(*two.client, *two.server,
                {.local = two.client->slice(0, 8), .id = 2, .to = To(*handle, *two.server)},
                {.local = two.server->slice(0, 200), .id = 1}),
        Succeeded(1));
    const Grh grh = Check(ReadGrh(two.server->bytes(0, kGrhBytes)));
    EXPECT_EQ(grh.traffic_class, handle == &urgent ? 8 << 2 : 0);
  }
}

TEST_P(Datagrams, AnAddressHandleMayBeClosedWhenThePostHasReturned) {
  // Each send has a handle of its own, closed at once; nobody polls meanwhile.
  // Expect: all succeed, and the last arrives.
  Two two = MakeTwo();
  constexpr uint64_t kSends = 50;
  for (uint64_t id = 0; id < kSends; ++id) {
    AddressHandle handle = HandleTo(*two.client, server_address());
    Post(two.client->qp, {.opcode = Opcode::kSend,
                          .local = two.client->slice(0, 8),
                          .id = id,
                          .to = To(handle, *two.server)});
    Check(handle.Close());
  }
  for (uint64_t id = 0; id < kSends; ++id) {
    EXPECT_THAT(WaitOne(two.client->cq), Succeeded(id));
  }
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 8), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 1}),
      Succeeded(1));
}

TEST_P(Datagrams, EveryMemberOfAGroupGetsACopy) {
  // Two queue pairs attached to a group, one that is not, one that has left.
  // Expect: the two get it, with the group as destination; nobody else does.
  constexpr const char* kGroup = "239.255.71.22";
  auto sender = NewEnd(client());
  std::vector<std::unique_ptr<End>> members;
  for (int i = 0; i < 2; ++i) members.push_back(NewEnd(server()));
  auto stranger = NewEnd(server());
  auto left = NewEnd(server());
  for (const auto& member : members) {
    const absl::Status attached = member->qp.AttachMulticast(kGroup);
    if (attached.code() == absl::StatusCode::kUnavailable && !simulated()) {
      GTEST_SKIP() << "no route for groups here: " << attached;
    }
    Check(attached);
    Check(member->qp.AttachMulticast(kGroup));  // twice is once
  }
  Check(left->qp.AttachMulticast(kGroup));
  Check(left->qp.DetachMulticast(kGroup));
  AddressHandle all = HandleTo(*sender, kGroup);
  for (End* end : {members[0].get(), members[1].get(), stranger.get(), left.get()}) {
    PostReceive(end->qp, {.local = end->slice(0, 200), .id = 1});
  }
  Fill(sender->bytes(0, 64), 5);
  std::vector<WorkCompletion> got(2);
  std::vector<bool> has(2);
  const auto come = [&] {
    for (size_t i = 0; i < 2; ++i) {
      has[i] = has[i] || members[i]->receives().Poll({&got[i], 1}) == 1;
    }
    return has[0] && has[1];
  };
  for (int i = 0; i < 200 && !come(); ++i) {
    Post(sender->qp, {.opcode = Opcode::kSend,
                      .local = sender->slice(0, 64),
                      .id = 2,
                      .to = {&all, kMulticastQpNumber, kQkey}});
    EXPECT_THAT(WaitOne(sender->cq), Succeeded(2));
    RunUntil(come, absl::Milliseconds(20));
  }
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(has[i]);
    EXPECT_THAT(got[i], AllOf(Succeeded(1), Field(&WorkCompletion::length, kGrhBytes + 64)));
    EXPECT_EQ(got[i].source_qp, sender->qp.number());
    EXPECT_EQ(Check(ReadGrh(members[i]->bytes(0, kGrhBytes))).destination, kGroup);
    EXPECT_THAT(members[i]->bytes(kGrhBytes, 64), HasPattern(5));
  }
  EXPECT_TRUE(StaysEmpty(stranger->receives()));
  EXPECT_TRUE(StaysEmpty(left->receives()));
}

}  // namespace
}  // namespace verbena::conformance
