// SPDX-License-Identifier: Apache-2.0
// For programs of verbs_test: two queue pairs of one process on the loopback's device, and memory.
#pragma once

#include <infiniband/verbs.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>

#include "gtest/gtest.h"

namespace verbena::dropin {

inline constexpr auto kDeadline = std::chrono::seconds(20);

inline ibv_context* Open() {
  int count = 0;
  ibv_device** const list = ibv_get_device_list(&count);
  ibv_context* context = nullptr;
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(ibv_get_device_name(list[i]), "tcp_lo") == 0)
      context = ibv_open_device(list[i]);
  }
  ibv_free_device_list(list);
  return context;
}

inline ibv_wc Next(ibv_cq* cq) {
  const auto end = std::chrono::steady_clock::now() + kDeadline;
  ibv_wc wc{};
  int n = 0;
  while ((n = ibv_poll_cq(cq, 1, &wc)) == 0 && std::chrono::steady_clock::now() < end) {
  }
  EXPECT_EQ(n, 1) << "no completion in time";
  return wc;
}

inline constexpr int kInitMask =
    IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
inline constexpr int kRtrMask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
inline constexpr int kRtsMask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
// Of IBV_QPT_UC.
inline constexpr int kUnreliableRtrMask =
    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
inline constexpr int kUnreliableRtsMask = IBV_QP_STATE | IBV_QP_SQ_PSN;
inline constexpr int kEverything = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                   IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                                   IBV_ACCESS_MW_BIND;

// Two queue pairs of one process, and memory.
class Verbs : public testing::Test {
 protected:
  explicit Verbs(ibv_qp_type type = IBV_QPT_RC) : type_(type) {}
  void SetUp() override {
    context_ = Open();
    ASSERT_NE(context_, nullptr);
    pd_ = ibv_alloc_pd(context_);
    channel_ = ibv_create_comp_channel(context_);
    for (int i = 0; i < 2; ++i) {
      cq_[i] = ibv_create_cq(context_, 64, nullptr, channel_, 0);
      qp_[i] = NewQueuePair(cq_[i]);
      ASSERT_NE(qp_[i], nullptr);
    }
    mr_ = ibv_reg_mr(pd_, memory_.data(), memory_.size(), kEverything);
    ASSERT_NE(mr_, nullptr);
  }
  void TearDown() override {
    for (ibv_qp* qp : qp_) {
      if (qp != nullptr) {
        EXPECT_EQ(ibv_destroy_qp(qp), 0);
      }
    }
    for (ibv_cq* cq : cq_) EXPECT_EQ(ibv_destroy_cq(cq), 0);
    EXPECT_EQ(ibv_destroy_comp_channel(channel_), 0);
    EXPECT_EQ(ibv_dereg_mr(mr_), 0);
    EXPECT_EQ(ibv_dealloc_pd(pd_), 0);
    EXPECT_EQ(ibv_close_device(context_), 0);
  }

  ibv_qp* NewQueuePair(ibv_cq* cq) { return NewQueuePair(cq, type_); }
  ibv_qp* NewQueuePair(ibv_cq* cq, ibv_qp_type type) {
    ibv_qp_init_attr_ex attr{};
    attr.send_cq = attr.recv_cq = cq;
    attr.cap = {.max_send_wr = 16,
                .max_recv_wr = 16,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = 64};
    attr.qp_type = type;
    attr.sq_sig_all = 1;
    attr.pd = pd_;
    attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE |
                          IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
                          IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV;
    return ibv_create_qp_ex(context_, &attr);
  }

  int ToInit(ibv_qp* qp) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qp_access_flags = kEverything;
    return ibv_modify_qp(qp, &attr, kInitMask);
  }
  int ToRtr(ibv_qp* qp, uint32_t peer) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    attr.dest_qp_num = peer;
    attr.max_dest_rd_atomic = 4;
    attr.min_rnr_timer = 12;
    attr.ah_attr.is_global = 1;
    attr.ah_attr.port_num = 1;
    EXPECT_EQ(ibv_query_gid(context_, 1, 0, &attr.ah_attr.grh.dgid), 0);
    return ibv_modify_qp(qp, &attr, qp->qp_type == IBV_QPT_UC ? kUnreliableRtrMask : kRtrMask);
  }
  // 4.096 µs × 2^`timeout`, four times, until a peer counts as lost.
  int ToRts(ibv_qp* qp, uint8_t timeout = 14) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = timeout;
    attr.retry_cnt = 3;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 4;
    return ibv_modify_qp(qp, &attr, qp->qp_type == IBV_QPT_UC ? kUnreliableRtsMask : kRtsMask);
  }
  // By one thread, each end to its end: nothing here may wait for the other one.
  void Connect() {
    for (int i : {0, 1}) {
      ASSERT_EQ(ToInit(qp_[i]), 0);
      ASSERT_EQ(ToRtr(qp_[i], qp_[1 - i]->qp_num), 0);
      ASSERT_EQ(ToRts(qp_[i]), 0);
    }
  }

  ibv_sge At(size_t offset, uint32_t length) {
    return {reinterpret_cast<uint64_t>(memory_.data() + offset), length, mr_->lkey};
  }
  void Put(size_t offset, const std::string& text) {
    std::copy(text.begin(), text.end(), memory_.begin() + static_cast<ptrdiff_t>(offset));
  }
  int Receive(int end, size_t offset, uint32_t length, uint64_t id) {
    ibv_sge sge = At(offset, length);
    ibv_recv_wr wr{id, nullptr, &sge, 1};
    ibv_recv_wr* bad = nullptr;
    return ibv_post_recv(qp_[end], &wr, &bad);
  }
  int Send(int end, size_t offset, uint32_t length, uint64_t id) {
    ibv_sge sge = At(offset, length);
    ibv_send_wr wr{};
    wr.wr_id = id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND;
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp_[end], &wr, &bad);
  }

  const ibv_qp_type type_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_comp_channel* channel_ = nullptr;
  ibv_cq* cq_[2] = {};
  ibv_qp* qp_[2] = {};
  ibv_mr* mr_ = nullptr;
  alignas(64) std::array<char, 4096> memory_{};
};

}  // namespace verbena::dropin
