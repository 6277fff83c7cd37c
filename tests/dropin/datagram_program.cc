// SPDX-License-Identifier: Apache-2.0
// As verbs_program.cc, of datagrams: address handles, states, errnos, and the 40 bytes in front.
#include <infiniband/verbs.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"
#include "tests/dropin/verbs_fixture.h"

namespace verbena::dropin {
namespace {

constexpr uint32_t kQkey = 0x11111111;
constexpr uint32_t kGrh = 40;

// A queue pair that sends to itself.
class Datagrams : public testing::Test {
 protected:
  void SetUp() override {
    context_ = Open();
    ASSERT_NE(context_, nullptr);
    pd_ = ibv_alloc_pd(context_);
    send_cq_ = ibv_create_cq(context_, 64, nullptr, nullptr, 0);
    receive_cq_ = ibv_create_cq(context_, 64, nullptr, nullptr, 0);
    mr_ = ibv_reg_mr(pd_, memory_.data(), memory_.size(), IBV_ACCESS_LOCAL_WRITE);
    ibv_qp_init_attr_ex attr{};
    attr.send_cq = send_cq_;
    attr.recv_cq = receive_cq_;
    attr.cap = {.max_send_wr = 16,
                .max_recv_wr = 16,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
    attr.qp_type = IBV_QPT_UD;
    attr.sq_sig_all = 1;
    attr.pd = pd_;
    attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    qp_ = ibv_create_qp_ex(context_, &attr);
    ASSERT_NE(qp_, nullptr);
    ah_ = Handle(1);
    ASSERT_NE(ah_, nullptr);
  }
  void TearDown() override {
    EXPECT_EQ(ibv_destroy_ah(ah_), 0);
    EXPECT_EQ(ibv_destroy_qp(qp_), 0);
    EXPECT_EQ(ibv_destroy_cq(send_cq_), 0);
    EXPECT_EQ(ibv_destroy_cq(receive_cq_), 0);
    EXPECT_EQ(ibv_dereg_mr(mr_), 0);
    EXPECT_EQ(ibv_dealloc_pd(pd_), 0);
    EXPECT_EQ(ibv_close_device(context_), 0);
  }

  ibv_ah* Handle(uint8_t port) {
    ibv_ah_attr attr{};
    attr.is_global = 1;
    attr.port_num = port;
    EXPECT_EQ(ibv_query_gid(context_, 1, 0, &attr.grh.dgid), 0);
    return ibv_create_ah(pd_, &attr);
  }
  int Modify(ibv_qp_state state, int mask, uint32_t qkey = kQkey) {
    ibv_qp_attr attr{};
    attr.qp_state = state;
    attr.port_num = 1;
    attr.qkey = qkey;
    return ibv_modify_qp(qp_, &attr, IBV_QP_STATE | mask);
  }
  void ToRts() {
    ASSERT_EQ(Modify(IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), 0);
    ASSERT_EQ(Modify(IBV_QPS_RTR, 0), 0);
    ASSERT_EQ(Modify(IBV_QPS_RTS, IBV_QP_SQ_PSN), 0);
  }
  ibv_sge At(size_t offset, uint32_t length) {
    return {reinterpret_cast<uint64_t>(memory_.data() + offset), length, mr_->lkey};
  }
  int Receive(uint64_t id, size_t offset, uint32_t length) {
    ibv_sge sge = At(offset, length);
    ibv_recv_wr wr{.wr_id = id, .next = nullptr, .sg_list = &sge, .num_sge = 1};
    ibv_recv_wr* bad = nullptr;
    return ibv_post_recv(qp_, &wr, &bad);
  }
  int Send(uint64_t id, uint32_t length, ibv_ah* ah, ibv_wr_opcode opcode = IBV_WR_SEND) {
    ibv_sge sge = At(0, length);
    ibv_send_wr wr{};
    wr.wr_id = id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.imm_data = 0x04030201;
    wr.wr.ud = {.ah = ah, .remote_qpn = qp_->qp_num, .remote_qkey = kQkey};
    ibv_send_wr* bad = nullptr;
    const int result = ibv_post_send(qp_, &wr, &bad);
    if (result != 0) {
      EXPECT_EQ(bad, &wr);
    }
    return result;
  }

  std::array<unsigned char, 16384> memory_{};
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_cq* send_cq_ = nullptr;
  ibv_cq* receive_cq_ = nullptr;
  ibv_mr* mr_ = nullptr;
  ibv_qp* qp_ = nullptr;
  ibv_ah* ah_ = nullptr;
};

TEST_F(Datagrams, ArriveWithWhatAnAnswerNeeds) {
  // A message with immediate, and an answer by ibv_create_ah_from_wc(3).
  // Expect: 40 bytes more than were sent, the flags, the sender's number, an IPv4 header.
  ToRts();
  std::memset(memory_.data(), 0x5a, 100);
  ASSERT_EQ(Receive(1, 4096, 1000), 0);
  ASSERT_EQ(Send(2, 100, ah_, IBV_WR_SEND_WITH_IMM), 0);
  EXPECT_EQ(Next(send_cq_).wr_id, 2u);
  ibv_wc wc = Next(receive_cq_);
  EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.opcode, IBV_WC_RECV);
  EXPECT_EQ(wc.byte_len, kGrh + 100);
  EXPECT_EQ(wc.wc_flags, unsigned{IBV_WC_GRH | IBV_WC_WITH_IMM});
  EXPECT_EQ(wc.sl, 8 | 2);  // as devices tell of a UDP packet over IPv4
  EXPECT_EQ(wc.imm_data, 0x04030201u);
  EXPECT_EQ(wc.src_qp, qp_->qp_num);
  EXPECT_EQ(memory_[4096 + 20], 0x45);
  EXPECT_EQ(memory_[4096 + kGrh + 99], 0x5a);
  ibv_ah* const back =
      ibv_create_ah_from_wc(pd_, &wc, reinterpret_cast<ibv_grh*>(&memory_[4096]), 1);
  ASSERT_NE(back, nullptr);
  ASSERT_EQ(Receive(3, 4096, 1000), 0);
  ASSERT_EQ(Send(4, 10, back), 0);
  EXPECT_EQ(Next(send_cq_).wr_id, 4u);
  wc = Next(receive_cq_);
  EXPECT_EQ(wc.wr_id, 3u);
  EXPECT_EQ(wc.byte_len, kGrh + 10);
  EXPECT_EQ(ibv_destroy_ah(back), 0);
}

TEST_F(Datagrams, PostedCallByCall) {
  // ibv_wr_send(3) with ibv_wr_set_ud_addr(3).
  ToRts();
  ibv_qp_ex* const ex = ibv_qp_to_qp_ex(qp_);
  ASSERT_NE(ex, nullptr);
  ASSERT_EQ(Receive(1, 4096, 1000), 0);
  ibv_wr_start(ex);
  ex->wr_id = 2;
  ex->wr_flags = 0;
  ibv_wr_send(ex);
  ibv_wr_set_ud_addr(ex, ah_, qp_->qp_num, kQkey);
  ibv_wr_set_sge(ex, mr_->lkey, reinterpret_cast<uint64_t>(memory_.data()), 8);
  ASSERT_EQ(ibv_wr_complete(ex), 0);
  EXPECT_EQ(Next(send_cq_).status, IBV_WC_SUCCESS);
  EXPECT_EQ(Next(receive_cq_).byte_len, kGrh + 8);
}

TEST_F(Datagrams, WhatIsWrongHasTheUsualErrno) {
  // Wrong ports, masks, states, operations and lengths.
  // Expect: EINVAL each, and nothing changes.
  EXPECT_EQ(Handle(2), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Modify(IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT), EINVAL);  // without Q_Key
  EXPECT_EQ(Send(1, 8, ah_), EINVAL);
  ToRts();
  EXPECT_EQ(Modify(IBV_QPS_RTS, IBV_QP_TIMEOUT), EINVAL);
  EXPECT_EQ(Send(1, 8, ah_, IBV_WR_RDMA_WRITE), EINVAL);
  EXPECT_EQ(Send(1, 4097, ah_), EINVAL);
  EXPECT_EQ(Send(1, 8, nullptr), EINVAL);
  ibv_gid no_group{};
  EXPECT_EQ(ibv_attach_mcast(qp_, &no_group, 0), EINVAL);
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  ASSERT_EQ(ibv_query_qp(qp_, &attr, IBV_QP_QKEY | IBV_QP_STATE, &init), 0);
  EXPECT_EQ(attr.qkey, kQkey);
  EXPECT_EQ(attr.qp_state, IBV_QPS_RTS);
  EXPECT_EQ(init.qp_type, IBV_QPT_UD);
}

TEST_F(Datagrams, ErrFlushesAndResetBeginsAnew) {
  ToRts();
  ASSERT_EQ(Receive(1, 4096, 1000), 0);
  ASSERT_EQ(Modify(IBV_QPS_ERR, 0), 0);
  EXPECT_EQ(Next(receive_cq_).status, IBV_WC_WR_FLUSH_ERR);
  ASSERT_EQ(Modify(IBV_QPS_RESET, 0), 0);
  ToRts();
  ASSERT_EQ(Receive(2, 4096, 1000), 0);
  ASSERT_EQ(Send(3, 8, ah_), 0);
  EXPECT_EQ(Next(receive_cq_).wr_id, 2u);
  EXPECT_EQ(Next(send_cq_).wr_id, 3u);
}

}  // namespace
}  // namespace verbena::dropin
