// SPDX-License-Identifier: Apache-2.0
// Datagrams on the driver that does nothing (tests/bench/stub_driver, which is linked in): what a
// device is told, and what Soft-RoCE does not show.
#include "transport/datagram.h"

#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transport/completion_queue.h"
#include "transport/events.h"
#include "transport/shared_receive_queue.h"
#include "verbs/address_handle.h"
#include "verbs/device.h"
#include "verbs/linked_library.h"
#include "verbs/protection_domain.h"
#include "verbs/service.h"
#include "verbs/spent_handles.h"

namespace verbena::verbs {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr uint32_t kQkey = 0x1234;

struct Sent {
  ibv_ah* handle;
  uint32_t qp_number, qkey;
  unsigned flags;
};
std::vector<Sent> sent;
std::vector<ibv_ah_attr> asked;
std::deque<ibv_wc> completions;
ibv_wc_status fails_as = IBV_WC_SUCCESS;  // what is posted from now on
int handles = 0;                          // that there are
ibv_qp_state device_state = IBV_QPS_RTS;

int DriverPost(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** /*bad*/) {
  for (; wr != nullptr; wr = wr->next) {
    sent.push_back({wr->wr.ud.ah, wr->wr.ud.remote_qpn, wr->wr.ud.remote_qkey, wr->send_flags});
    ibv_wc wc{};
    wc.wr_id = wr->wr_id;
    wc.status = fails_as;
    wc.qp_num = qp->qp_num;
    completions.push_back(wc);
  }
  return 0;
}
// Each is filled at once, by queue pair 0x55.
void Filled(const ibv_recv_wr* wr) {
  for (; wr != nullptr; wr = wr->next) {
    ibv_wc wc{};
    wc.wr_id = wr->wr_id;
    wc.opcode = IBV_WC_RECV;
    wc.byte_len = kGrhBytes + 8;
    wc.wc_flags = IBV_WC_GRH;
    wc.src_qp = 0x55;
    completions.push_back(wc);
  }
}
int DriverReceive(ibv_qp* /*qp*/, ibv_recv_wr* wr, ibv_recv_wr** /*bad*/) {
  Filled(wr);
  return 0;
}
int DriverReceiveShared(ibv_srq* /*srq*/, ibv_recv_wr* wr, ibv_recv_wr** /*bad*/) {
  Filled(wr);
  return 0;
}
int DriverPoll(ibv_cq* /*cq*/, int most, ibv_wc* wc) {
  int n = 0;
  for (; n < most && !completions.empty(); completions.pop_front()) wc[n++] = completions.front();
  return n;
}
ibv_ah* CountedHandle(ibv_pd* pd, ibv_ah_attr* attributes) {
  asked.push_back(*attributes);
  ++handles;
  return ::ibv_create_ah(pd, attributes);
}
int CountedHandleEnd(ibv_ah* ah) {
  --handles;
  return ::ibv_destroy_ah(ah);
}
int StateOfDevice(ibv_qp*, ibv_qp_attr* attributes, int, ibv_qp_init_attr*) {
  attributes->qp_state = device_state;
  return 0;
}

class Nobody final : public provider::Host {
 public:
  void Push(const void*, Event) override {}
  void Forget(const void*) override {}
};

class DatagramsOnADevice : public testing::Test {
 protected:
  void SetUp() override {
    sent.clear();
    asked.clear();
    completions.clear();
    fails_as = IBV_WC_SUCCESS;
    handles = 0;
    device_state = IBV_QPS_RTS;
    the_library() = LinkedLibrary();
    the_library().create_ah = CountedHandle;
    the_library().destroy_ah = CountedHandleEnd;
    the_library().query_qp = StateOfDevice;
    service_ = *Service::Create();
    Open(Link::kRoce);
  }
  void TearDown() override {
    if (qp_.is_open()) {
      EXPECT_TRUE(qp_.Close().ok());
    }
    Shut();
    EXPECT_EQ(handles, 0);
  }
  void Shut() {
    EXPECT_TRUE(cq_->Close().ok());
    EXPECT_TRUE(domain_->Close().ok());
    domain_.reset();
    device_.reset();
  }

  void Open(Link link) {
    if (device_ != nullptr) Shut();
    Found found = std::move(FindDevices([](const DeviceInfo&) { return true; })->front());
    found.info.link = link;
    found.context->ops.post_send = DriverPost;
    found.context->ops.post_recv = DriverReceive;
    found.context->ops.post_srq_recv = DriverReceiveShared;
    found.context->ops.poll_cq = DriverPoll;
    device_ = std::make_unique<Device>(nullptr, service_.get(), std::move(found));
    device_->SetHost(&nobody_);
    domain_ = *device_->AllocateProtectionDomain();
    cq_ = std::make_unique<verbena::CompletionQueue>(
        *device_->CreateCompletionQueue({.entries = 512}));
  }
  QueuePairOptions Options(QpType type = QpType::kUd) {
    return {.type = type, .send_cq = cq_.get(), .receive_cq = cq_.get()};
  }
  void MakeReady(const QueuePairOptions& options) {
    qp_ = verbena::QueuePair(*domain_->CreateQueuePair(options), nullptr);
    ASSERT_TRUE(qp_.Modify({.state = QpState::kRtr, .qkey = kQkey}).ok());
    ASSERT_TRUE(qp_.Modify({.state = QpState::kRts}).ok());
  }
  verbena::AddressHandle HandleTo(const AddressHandleOptions& options) {
    return verbena::AddressHandle(*domain_->CreateAddressHandle(options));
  }
  PostError Send(const verbena::AddressHandle& to, uint32_t qkey = kQkey) {
    const SendWr wr{.flags = SendFlags::kFence,
                    .to = {.address = &to, .qp_number = 0x77, .qkey = qkey}};
    return qp_.PostSend(wr).error;
  }
  WorkCompletion PollOne() {
    WorkCompletion wc[2] = {{.source_qp = 0xbad}, {.source_qp = 0xbad}};
    EXPECT_EQ(cq_->Poll(wc), 1u);
    return wc[0];
  }

  Nobody nobody_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<provider::ProtectionDomain> domain_;
  std::unique_ptr<verbena::CompletionQueue> cq_;
  verbena::QueuePair qp_;
};

TEST_F(DatagramsOnADevice, WhatAnAddressHandleStandsFor) {
  // A peer, a group, and a family of which the port has no address.
  (void)HandleTo({.address = "192.0.2.7", .traffic_class = 8, .hop_limit = 3});
  (void)HandleTo({.address = "239.1.2.3", .hop_limit = 3});
  ASSERT_THAT(asked, SizeIs(2));
  const uint8_t peer[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7};
  EXPECT_EQ(std::memcmp(asked[0].grh.dgid.raw, peer, sizeof peer), 0);
  EXPECT_EQ(asked[0].is_global, 1);
  EXPECT_EQ(asked[0].grh.traffic_class, 8);
  EXPECT_EQ(asked[0].grh.hop_limit, 64);
  EXPECT_EQ(asked[1].grh.hop_limit, 3);
  EXPECT_THAT(std::string(domain_->CreateAddressHandle({.address = "fd00::1"}).status().message()),
              HasSubstr("no address to reach fd00::1 from"));
}

TEST_F(DatagramsOnADevice, GroupsHaveGidsOfTheirOwnOnVersionOne) {
  const Ip group = Address::FromIp("239.1.2.3", 0)->bytes();
  const ibv_gid routed = GidOf(group, IBV_GID_TYPE_ROCE_V2);
  const ibv_gid local = GidOf(group, IBV_GID_TYPE_ROCE_V1);
  EXPECT_EQ(GidText(routed.raw), "239.1.2.3");
  EXPECT_EQ(GidText(local.raw), "ff0e::ffff:ef01:203");
}

TEST_F(DatagramsOnADevice, WhatTheDriverIsGiven) {
  // A Q_Key, and the highest bit, which stands for the own one; a group.
  // Expect: no driver has to know of either; and no fence, which is for streams.
  MakeReady(Options());
  verbena::AddressHandle peer = HandleTo({.address = "192.0.2.7"});
  verbena::AddressHandle group = HandleTo({.address = "239.1.2.3"});
  EXPECT_EQ(Send(peer, 5), PostError::kNone);
  EXPECT_EQ(Send(peer, kOwnQkey | 5), PostError::kNone);
  EXPECT_EQ(Send(group, 5), PostError::kNone);
  ASSERT_THAT(sent, SizeIs(3));
  EXPECT_EQ(sent[0].qp_number, 0x77u);
  EXPECT_EQ(sent[0].qkey, 5u);
  EXPECT_EQ(sent[0].flags & IBV_SEND_FENCE, 0u);
  EXPECT_EQ(sent[1].qkey, kQkey);
  EXPECT_NE(sent[2].handle, sent[0].handle);
  EXPECT_EQ(sent[2].qp_number, kMulticastQpNumber);
}

TEST_F(DatagramsOnADevice, AHandleServesItsOwnDomain) {
  MakeReady(Options());
  auto other = *device_->AllocateProtectionDomain();
  {
    verbena::AddressHandle foreign(*other->CreateAddressHandle({.address = "192.0.2.7"}));
    EXPECT_EQ(Send(foreign), PostError::kNoDestination);
  }
  EXPECT_THAT(sent, SizeIs(0));
  EXPECT_TRUE(other->Close().ok());
}

TEST_F(DatagramsOnADevice, ADeviceKeepsAHandleUntilItsSendsAreComplete) {
  // Closed when the post has returned, then polled; and many that nobody polls for.
  // Expect: it lives until then; of many the device itself is asked.
  MakeReady(Options());
  {
    verbena::AddressHandle handle = HandleTo({.address = "192.0.2.7"});
    EXPECT_EQ(Send(handle), PostError::kNone);
  }
  EXPECT_EQ(handles, 1);
  (void)PollOne();
  (void)HandleTo({.address = "192.0.2.8"});  // looks around when it goes
  EXPECT_EQ(handles, 0);
  for (size_t i = 0; i < SpentHandles::kMany; ++i) {
    EXPECT_EQ(handles, static_cast<int>(i));
    verbena::AddressHandle handle = HandleTo({.address = "192.0.2.7"});
    EXPECT_EQ(Send(handle), PostError::kNone);
  }
  EXPECT_EQ(handles, 0);
  {
    verbena::AddressHandle handle = HandleTo({.address = "192.0.2.7"});
    EXPECT_EQ(Send(handle), PostError::kNone);
  }
  EXPECT_EQ(handles, 1);
}

TEST_F(DatagramsOnADevice, ReceivesTellTheSender) {
  // Expect: with receives of its own, posted alone and in a batch.
  MakeReady(Options());
  for (const size_t count : {size_t{1}, size_t{3}}) {
    const ReceiveWr receives[3] = {{.id = 1}, {.id = 2}, {.id = 3}};
    EXPECT_TRUE(qp_.PostReceive(std::span(receives).first(count)).ok());
    for (size_t i = 0; i < count; ++i) {
      WorkCompletion got{.source_qp = 0xbad};
      ASSERT_EQ(cq_->Poll({&got, 1}), 1u);
      EXPECT_EQ(got.source_qp, 0x55u);
      EXPECT_TRUE(got.has_grh);
    }
  }
}

TEST_F(DatagramsOnADevice, SharedReceivesTellTheSenderWhileThereAreDatagrams) {
  // Expect: with receives of a shared queue; when the queue pair is gone, polls take their usual
  // way again, which leaves alone what is not of streams.
  verbena::SharedReceiveQueue srq(*domain_->CreateSharedReceiveQueue({}));
  QueuePairOptions options = Options();
  options.shared_receive_queue = &srq;
  MakeReady(options);
  const ReceiveWr receive{.id = 9};
  EXPECT_TRUE(srq.PostReceive(receive).ok());
  const WorkCompletion got = PollOne();
  EXPECT_EQ(got.id, 9u);
  EXPECT_EQ(got.source_qp, 0x55u);
  EXPECT_TRUE(got.has_grh);
  EXPECT_TRUE(qp_.Close().ok());
  EXPECT_TRUE(srq.PostReceive(receive).ok());
  EXPECT_EQ(PollOne().source_qp, 0xbadu);
  EXPECT_TRUE(srq.Close().ok());
}

TEST_F(DatagramsOnADevice, AFailedSendStopsTheSendQueueEachTime) {
  // On a device that goes to SQE, as hardware does.
  // Expect: SQE with the reason, RTS without; the second time as the first. On one that goes to
  // ERR: ERR.
  MakeReady(Options());
  verbena::AddressHandle peer = HandleTo({.address = "192.0.2.7"});
  for (int i = 0; i < 2; ++i) {
    fails_as = IBV_WC_LOC_PROT_ERR;
    EXPECT_EQ(Send(peer), PostError::kNone);
    device_state = IBV_QPS_SQE;
    EXPECT_EQ(PollOne().status, WcStatus::kLocalProtectionError);
    EXPECT_EQ(qp_.state(), QpState::kSqe);
    EXPECT_THAT(std::string(qp_.cause().message()), HasSubstr("modify the queue pair to RTS"));
    EXPECT_TRUE(qp_.Modify({.state = QpState::kRts}).ok());
    device_state = IBV_QPS_RTS;
    EXPECT_TRUE(qp_.cause().ok());
    fails_as = IBV_WC_SUCCESS;
    EXPECT_EQ(Send(peer), PostError::kNone);
    EXPECT_TRUE(PollOne().ok());
  }
  fails_as = IBV_WC_LOC_PROT_ERR;
  EXPECT_EQ(Send(peer), PostError::kNone);
  device_state = IBV_QPS_ERR;
  EXPECT_EQ(PollOne().status, WcStatus::kLocalProtectionError);
  EXPECT_EQ(qp_.state(), QpState::kErr);
  EXPECT_THAT(std::string(qp_.cause().message()), HasSubstr("reset the queue pair"));
}

TEST_F(DatagramsOnADevice, OtherLinksHaveNone) {
  // Expect: the bit says so, and so does each call that needs it.
  for (const Link link : {Link::kInfiniband, Link::kIwarp}) {
    Open(link);
    EXPECT_FALSE(device_->capabilities().unreliable_datagram);
    EXPECT_EQ(device_->attributes().max_datagram, 0u);
    EXPECT_EQ(domain_->CreateQueuePair(Options()).status().code(),
              absl::StatusCode::kUnimplemented);
    EXPECT_EQ(domain_->CreateAddressHandle({.address = "192.0.2.7"}).status().code(),
              absl::StatusCode::kUnimplemented);
  }
}

}  // namespace
}  // namespace verbena::verbs
