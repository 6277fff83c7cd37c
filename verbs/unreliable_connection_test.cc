// SPDX-License-Identifier: Apache-2.0
// Unreliable connections on the driver that does nothing (tests/bench/stub_driver, which is linked
// in): what a device is told, and what Soft-RoCE does not show.
#include <deque>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transport/completion_queue.h"
#include "transport/events.h"
#include "transport/queue_pair.h"
#include "transport/shared_receive_queue.h"
#include "verbs/device.h"
#include "verbs/linked_library.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/service.h"

namespace verbena::verbs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<ibv_qp_type> made;
std::vector<std::pair<ibv_qp_state, int>> asked;  // by masks with IBV_QP_STATE: the state
std::vector<ibv_wr_opcode> sent;
std::deque<ibv_wc> completions;
ibv_wc_status fails_as = IBV_WC_SUCCESS;  // what is posted from now on
ibv_qp_state device_state = IBV_QPS_RTS;

void Complete(uint64_t name, uint32_t qp_number) {
  ibv_wc wc{};
  wc.wr_id = name;
  wc.status = fails_as;
  wc.qp_num = qp_number;
  completions.push_back(wc);
}
int DriverPost(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** /*bad*/) {
  for (; wr != nullptr; wr = wr->next) {
    sent.push_back(wr->opcode);
    Complete(wr->wr_id, qp->qp_num);
  }
  return 0;
}
int DriverPoll(ibv_cq* /*cq*/, int most, ibv_wc* wc) {
  int n = 0;
  for (; n < most && !completions.empty(); completions.pop_front()) wc[n++] = completions.front();
  return n;
}
uint32_t shared_for = 0;  // the queue pair that takes shared receives
int DriverReceiveShared(ibv_srq* /*srq*/, ibv_recv_wr* wr, ibv_recv_wr** /*bad*/) {
  for (; wr != nullptr; wr = wr->next) Complete(wr->wr_id, shared_for);
  return 0;
}
ibv_qp* NotedQueuePair(ibv_pd* pd, ibv_qp_init_attr* attributes) {
  made.push_back(attributes->qp_type);
  return ::ibv_create_qp(pd, attributes);
}
int NotedModify(ibv_qp* qp, ibv_qp_attr* attributes, int mask) {
  asked.emplace_back((mask & IBV_QP_STATE) != 0 ? attributes->qp_state : IBV_QPS_UNKNOWN, mask);
  return ::ibv_modify_qp(qp, attributes, mask);
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

class UnreliableConnections : public testing::Test {
 protected:
  void SetUp() override {
    made.clear();
    asked.clear();
    sent.clear();
    completions.clear();
    fails_as = IBV_WC_SUCCESS;
    device_state = IBV_QPS_RTS;
    the_library() = LinkedLibrary();
    the_library().create_qp = NotedQueuePair;
    the_library().modify_qp = NotedModify;
    the_library().query_qp = StateOfDevice;
    service_ = *Service::Create();
    Open(Link::kRoce, false);
  }
  void TearDown() override { Shut(); }

  void Shut() {
    for (verbena::QueuePair* qp : {&qp_, &peer_}) {
      if (qp->is_open()) {
        EXPECT_TRUE(qp->Close().ok());
      }
    }
    EXPECT_TRUE(cq_->Close().ok());
    EXPECT_TRUE(domain_->Close().ok());
    domain_.reset();
    device_.reset();
  }
  void Open(Link link, bool software) {
    if (device_ != nullptr) Shut();
    Found found = std::move(FindDevices([](const DeviceInfo&) { return true; })->front());
    found.info.link = link;
    found.info.software = software;
    found.iwarp = link == Link::kIwarp;
    found.context->ops.post_send = DriverPost;
    found.context->ops.post_srq_recv = DriverReceiveShared;
    found.context->ops.poll_cq = DriverPoll;
    device_ = std::make_unique<Device>(nullptr, service_.get(), std::move(found));
    device_->SetHost(&nobody_);
    domain_ = *device_->AllocateProtectionDomain();
    cq_ = std::make_unique<verbena::CompletionQueue>(
        *device_->CreateCompletionQueue({.entries = 512}));
  }
  QueuePairOptions Options(QpType type = QpType::kUc) {
    return {.type = type, .send_cq = cq_.get(), .receive_cq = cq_.get()};
  }
  void Connect(const QueuePairOptions& options) {
    qp_ = verbena::QueuePair(*domain_->CreateQueuePair(options), nullptr);
    peer_ = verbena::QueuePair(*domain_->CreateQueuePair(Options(options.type)), nullptr);
    ASSERT_TRUE(qp_.address().ok());
    const absl::StatusOr<std::string> there = peer_.address();
    ASSERT_TRUE(there.ok()) << there.status();
    asked.clear();
    ASSERT_TRUE(qp_.StartConnect(*there).ok());
    ASSERT_EQ(qp_.state(), QpState::kRts);
  }
  PostError Send() {
    const SendWr wr{.local = entry_, .id = 1};
    return qp_.PostSend(wr).error;
  }
  WorkCompletion PollOne() {
    WorkCompletion wc[2];
    EXPECT_EQ(cq_->Poll(wc), 1u);
    return wc[0];
  }

  const Sge entry_{.address = 0x1000, .length = 8, .key = 1};
  Nobody nobody_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<provider::ProtectionDomain> domain_;
  std::unique_ptr<verbena::CompletionQueue> cq_;
  verbena::QueuePair qp_, peer_;
};

TEST_F(UnreliableConnections, TheDeviceIsToldWhatTheManualPageHas) {
  // Expect: ibv_modify_qp(3)'s masks of IBV_QPT_UC, where a device may refuse any more; those of
  // IBV_QPT_RC beside them.
  constexpr int kReadyToReceive =
      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
  constexpr int kReadyToSend = IBV_QP_STATE | IBV_QP_SQ_PSN;
  Connect(Options());
  EXPECT_EQ(made.back(), IBV_QPT_UC);
  EXPECT_THAT(asked, ElementsAre(std::pair(IBV_QPS_RTR, kReadyToReceive),
                                 std::pair(IBV_QPS_RTS, kReadyToSend)));
  EXPECT_EQ(qp_.Query().initiator_depth, 0u);
  Open(Link::kRoce, false);
  Connect(Options(QpType::kRc));
  EXPECT_THAT(asked,
              ElementsAre(std::pair(IBV_QPS_RTR, kReadyToReceive | IBV_QP_MAX_DEST_RD_ATOMIC |
                                                     IBV_QP_MIN_RNR_TIMER),
                          std::pair(IBV_QPS_RTS, kReadyToSend | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                                     IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC)));
}

TEST_F(UnreliableConnections, WhatTheyDoNotHaveDoesNotReachTheDriver) {
  // Alone and in a batch, with one entry and with two: the short ways must not know them either.
  Connect(Options());
  const Sge two[] = {{.address = 0x1000, .length = 4, .key = 1},
                     {.address = 0x2000, .length = 4, .key = 1}};
  for (const Opcode opcode :
       {Opcode::kRead, Opcode::kCompareSwap, Opcode::kFetchAdd, Opcode::kSendWithInvalidate}) {
    const SendWr one{.opcode = opcode, .local = entry_};
    const SendWr other{.opcode = opcode, .local = std::span<const Sge>(two)};
    const SendWr batch[] = {one, one};
    EXPECT_EQ(qp_.PostSend(one).error, PostError::kInvalidOpcode);
    EXPECT_EQ(qp_.PostSend(other).error, PostError::kInvalidOpcode);
    EXPECT_EQ(qp_.PostSend(batch).error, PostError::kInvalidOpcode);
  }
  EXPECT_THAT(sent, IsEmpty());
  for (const Opcode opcode :
       {Opcode::kSend, Opcode::kSendWithImm, Opcode::kWrite, Opcode::kWriteWithImm}) {
    const SendWr one{.opcode = opcode, .local = entry_};
    EXPECT_TRUE(qp_.PostSend(one).ok());
  }
  EXPECT_THAT(sent, ElementsAre(IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE,
                                IBV_WR_RDMA_WRITE_WITH_IMM));
}

TEST_F(UnreliableConnections, AFailedSendStopsTheSendQueueEachTime) {
  // On a device that goes to SQE, as hardware does.
  // Expect: SQE with the reason. RTS goes on, and comes before the rights that are set with it, as
  // SQE takes none; the second time as the first. On a device that goes to ERR: ERR.
  Connect(Options());
  for (int i = 0; i < 2; ++i) {
    fails_as = IBV_WC_LOC_PROT_ERR;
    EXPECT_EQ(Send(), PostError::kNone);
    device_state = IBV_QPS_SQE;
    EXPECT_EQ(PollOne().status, WcStatus::kLocalProtectionError);
    EXPECT_EQ(qp_.state(), QpState::kSqe);
    EXPECT_THAT(std::string(qp_.cause().message()), HasSubstr("modify the queue pair to RTS"));
    asked.clear();
    EXPECT_TRUE(qp_.Modify({.state = QpState::kRts, .access = Access::kLocalWrite}).ok());
    EXPECT_THAT(asked, ElementsAre(std::pair(IBV_QPS_RTS, int{IBV_QP_STATE}),
                                   std::pair(IBV_QPS_UNKNOWN, int{IBV_QP_ACCESS_FLAGS})));
    EXPECT_TRUE(qp_.cause().ok());
    device_state = IBV_QPS_RTS;
    fails_as = IBV_WC_SUCCESS;
    EXPECT_EQ(Send(), PostError::kNone);
    EXPECT_TRUE(PollOne().ok());
  }
  fails_as = IBV_WC_LOC_PROT_ERR;
  EXPECT_EQ(Send(), PostError::kNone);
  device_state = IBV_QPS_ERR;
  EXPECT_EQ(PollOne().status, WcStatus::kLocalProtectionError);
  EXPECT_EQ(qp_.state(), QpState::kErr);
  EXPECT_THAT(std::string(qp_.cause().message()), HasSubstr("connect again"));
}

TEST_F(UnreliableConnections, ASharedReceiveThatADroppedMessageTookFailsAlone) {
  // IBTA 9.9.3, class E; and a receive that may not be filled, class A.
  // Expect: the queue pair goes on; then it does not.
  verbena::SharedReceiveQueue srq(*domain_->CreateSharedReceiveQueue({}));
  QueuePairOptions options = Options();
  options.shared_receive_queue = &srq;
  Connect(options);
  shared_for = qp_.Query().qp_number;
  const ReceiveWr receive{.id = 9};
  for (const ibv_wc_status status : {IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR}) {
    fails_as = status;
    EXPECT_TRUE(srq.PostReceive(receive).ok());
    EXPECT_FALSE(PollOne().ok());
    EXPECT_EQ(qp_.state(), QpState::kRts);
  }
  fails_as = IBV_WC_LOC_PROT_ERR;
  EXPECT_TRUE(srq.PostReceive(receive).ok());
  EXPECT_EQ(PollOne().status, WcStatus::kLocalProtectionError);
  EXPECT_EQ(qp_.state(), QpState::kErr);
  EXPECT_TRUE(qp_.Close().ok());
  EXPECT_TRUE(srq.Close().ok());
}

TEST_F(UnreliableConnections, TheConnectionManagerConnectsNone) {
  // Expect: neither end gets as far as a request, and is told what to do instead.
  auto qp = *domain_->CreateQueuePair(Options());
  auto* const own = static_cast<QueuePair*>(qp.get());
  const absl::Status connect =
      own->StartConnect(*Address::FromIp("192.0.2.7", 7471), ConnectParameters{}, {});
  for (const absl::Status& status : {connect, own->CheckOffer(CmEvent{}, Require{})}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("type UC; exchange addresses"));
  }
  EXPECT_TRUE(qp->Close().ok());
}

TEST_F(UnreliableConnections, WhatTheyHaveOnEachLink) {
  // Expect: on InfiniBand and RoCE, without what needs an answer; windows not on Soft-RoCE, which
  // cannot invalidate them; none on iWARP.
  for (const bool software : {false, true}) {
    for (const Link link : {Link::kInfiniband, Link::kRoce}) {
      Open(link, software);
      EXPECT_TRUE(device_->capabilities().unreliable_connection);
      auto qp = *domain_->CreateQueuePair(Options());
      const Capabilities c = qp->capabilities();
      EXPECT_TRUE(c.unreliable_connection && c.immediate && c.out_of_band);
      EXPECT_FALSE(c.remote_completion || c.rnr || c.atomics || c.global_atomics ||
                   c.send_with_invalidate || c.refusal_reasons || c.unreliable_datagram);
      EXPECT_EQ(c.memory_windows, device_->capabilities().memory_windows && !software);
      EXPECT_TRUE(qp->Close().ok());
    }
  }
  Open(Link::kIwarp, false);
  EXPECT_FALSE(device_->capabilities().unreliable_connection);
  const absl::Status none = domain_->CreateQueuePair(Options()).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(none.message()), HasSubstr("unreliable_connection"));
}

}  // namespace
}  // namespace verbena::verbs
