// SPDX-License-Identifier: Apache-2.0
// A program for libibverbs, as others write them: what stock programs do not show of the drop-in
// library. Runs on it by tests/dropin/on_dropin.
#include <infiniband/verbs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/dropin/verbs_fixture.h"

namespace verbena::dropin {
namespace {

TEST_F(Verbs, PostsWaitForThePeer) {
  // One end is connected and posts before the other has been told of it.
  // Expect: the modify calls return; the message arrives when the other end has come.
  ASSERT_EQ(ToInit(qp_[0]), 0);
  ASSERT_EQ(Send(0, 0, 5, 1), EINVAL);
  ASSERT_EQ(ToRtr(qp_[0], qp_[1]->qp_num), 0);
  ASSERT_EQ(ToRts(qp_[0], 0), 0);
  Put(0, "word");
  ASSERT_EQ(Send(0, 0, 5, 1), 0);
  ibv_wc wc;
  EXPECT_EQ(ibv_poll_cq(cq_[0], 1, &wc), 0);
  ASSERT_EQ(ToInit(qp_[1]), 0);
  ASSERT_EQ(Receive(1, 100, 50, 2), 0);
  ASSERT_EQ(ToRtr(qp_[1], qp_[0]->qp_num), 0);
  wc = Next(cq_[1]);
  EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.opcode, IBV_WC_RECV);
  EXPECT_EQ(wc.byte_len, 5u);
  EXPECT_EQ(wc.qp_num, qp_[1]->qp_num);
  EXPECT_STREQ(memory_.data() + 100, "word");
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
}

TEST_F(Verbs, APeerThatLeftIsLostWhenItIsNeeded) {
  // The peer's queue pair is destroyed.
  // Expect: this end stays in RTS with its receive posted; its next send fails with RETRY_EXC after
  // timeout × retries (0.27 s), and then the receive is flushed and the state is ERR.
  Connect();
  ASSERT_EQ(Receive(0, 0, 8, 1), 0);
  ASSERT_EQ(Receive(1, 8, 8, 2), 0);
  ASSERT_EQ(Send(0, 16, 8, 3), 0);
  EXPECT_EQ(Next(cq_[1]).wr_id, 2u);
  EXPECT_EQ(Next(cq_[0]).wr_id, 3u);
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = nullptr;
  ibv_qp_attr attr;
  ibv_qp_init_attr init;
  ASSERT_EQ(ibv_query_qp(qp_[0], &attr, IBV_QP_STATE, &init), 0);
  EXPECT_EQ(attr.qp_state, IBV_QPS_RTS);
  ASSERT_EQ(Send(0, 16, 8, 4), 0);
  ibv_wc wc = Next(cq_[0]);
  EXPECT_EQ(wc.wr_id, 4u);
  EXPECT_EQ(wc.status, IBV_WC_RETRY_EXC_ERR);
  wc = Next(cq_[0]);
  EXPECT_EQ(wc.wr_id, 1u);
  EXPECT_EQ(wc.status, IBV_WC_WR_FLUSH_ERR);
  ASSERT_EQ(ibv_query_qp(qp_[0], &attr, IBV_QP_STATE, &init), 0);
  EXPECT_EQ(attr.qp_state, IBV_QPS_ERR);
}

TEST_F(Verbs, RequestsThatAreBuilt) {
  // ibv_wr_start and its kin: a write of data that is gone by the time of ibv_wr_complete, a
  // fetch-and-add, a send from two places; polled as ibv_cq_ex does.
  Connect();
  ASSERT_EQ(Receive(1, 300, 50, 9), 0);
  uint64_t counter = 40;
  std::memcpy(memory_.data() + 200, &counter, sizeof counter);
  Put(112, "pieces");
  Put(128, "two");
  ibv_qp_ex* const qp = ibv_qp_to_qp_ex(qp_[0]);
  ASSERT_NE(qp, nullptr);
  std::string gone = "inline";
  ibv_wr_start(qp);
  qp->wr_id = 1;
  qp->wr_flags = 0;
  ibv_wr_rdma_write(qp, mr_->rkey, reinterpret_cast<uint64_t>(memory_.data() + 64));
  ibv_wr_set_inline_data(qp, gone.data(), gone.size());
  gone = "######";
  qp->wr_id = 2;
  ibv_wr_atomic_fetch_add(qp, mr_->rkey, reinterpret_cast<uint64_t>(memory_.data() + 200), 2);
  ibv_wr_set_sge(qp, mr_->lkey, reinterpret_cast<uint64_t>(memory_.data() + 208), 8);
  qp->wr_id = 3;
  ibv_wr_send(qp);
  const ibv_sge pieces[] = {At(112, 6), At(128, 4)};
  ibv_wr_set_sge_list(qp, 2, pieces);
  ASSERT_EQ(ibv_wr_complete(qp), 0);
  for (uint64_t id : {1, 2, 3}) {
    const ibv_wc wc = Next(cq_[0]);
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(Next(cq_[1]).byte_len, 10u);
  EXPECT_STREQ(memory_.data() + 300, "piecestwo");
  EXPECT_STREQ(memory_.data() + 64, "inline");
  uint64_t before = 0;
  std::memcpy(&before, memory_.data() + 208, sizeof before);
  std::memcpy(&counter, memory_.data() + 200, sizeof counter);
  EXPECT_EQ(before, 40u);
  EXPECT_EQ(counter, 42u);
}

TEST_F(Verbs, ExtendedPolling) {
  // Expect: what is read of a completion, a time that grows, ENOENT behind the last one.
  ibv_cq_init_attr_ex attr{};
  attr.cqe = 16;
  attr.wc_flags =
      IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_QP_NUM | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP;
  ibv_cq_ex* const cq = ibv_create_cq_ex(context_, &attr);
  ASSERT_NE(cq, nullptr);
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = NewQueuePair(ibv_cq_ex_to_cq(cq));
  ASSERT_NE(qp_[1], nullptr);
  Connect();
  ASSERT_EQ(Receive(1, 0, 8, 1), 0);
  ASSERT_EQ(Receive(1, 8, 8, 2), 0);
  ASSERT_EQ(Send(0, 16, 8, 3), 0);
  ASSERT_EQ(Send(0, 16, 7, 4), 0);
  EXPECT_EQ(Next(cq_[0]).wr_id, 3u);
  EXPECT_EQ(Next(cq_[0]).wr_id, 4u);
  ibv_poll_cq_attr how{};
  ASSERT_EQ(ibv_start_poll(cq, &how), 0);
  EXPECT_EQ(cq->wr_id, 1u);
  EXPECT_EQ(cq->status, IBV_WC_SUCCESS);
  EXPECT_EQ(ibv_wc_read_opcode(cq), IBV_WC_RECV);
  EXPECT_EQ(ibv_wc_read_byte_len(cq), 8u);
  EXPECT_EQ(ibv_wc_read_qp_num(cq), qp_[1]->qp_num);
  const uint64_t first = ibv_wc_read_completion_ts(cq);
  ASSERT_EQ(ibv_next_poll(cq), 0);
  EXPECT_EQ(ibv_wc_read_byte_len(cq), 7u);
  EXPECT_GE(ibv_wc_read_completion_ts(cq), first);
  EXPECT_EQ(ibv_next_poll(cq), ENOENT);
  ibv_end_poll(cq);
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = nullptr;
  EXPECT_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
}

TEST_F(Verbs, ExtendedPollingByTwoThreads) {
  // Two threads poll one queue by start and end; receive i is i bytes long. In between they let
  // each other run.
  // Expect: what a thread reads is of one completion, and each is read once.
  ibv_cq_init_attr_ex attr{};
  attr.cqe = 64;
  attr.wc_flags = IBV_WC_EX_WITH_BYTE_LEN;
  attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS;
  attr.flags = IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
  EXPECT_EQ(ibv_create_cq_ex(context_, &attr), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  attr.flags = 0;
  ibv_cq_ex* const cq = ibv_create_cq_ex(context_, &attr);
  ASSERT_NE(cq, nullptr);
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = NewQueuePair(ibv_cq_ex_to_cq(cq));
  ASSERT_NE(qp_[1], nullptr);
  Connect();
  constexpr uint64_t kAtOnce = 16;
  constexpr int kRounds = 200;
  std::atomic<int> read{0}, wrong{0};
  const auto poll_until = [&](int all) {
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    ibv_poll_cq_attr how{};
    while (read < all && std::chrono::steady_clock::now() < end) {
      if (ibv_start_poll(cq, &how) != 0) continue;
      const uint64_t id = cq->wr_id;
      std::this_thread::yield();
      if (cq->wr_id != id || ibv_wc_read_byte_len(cq) != id) ++wrong;
      ++read;
      ibv_end_poll(cq);
    }
  };
  for (int round = 1; round <= kRounds; ++round) {
    for (uint64_t i = 1; i <= kAtOnce; ++i) ASSERT_EQ(Receive(1, 0, 64, i), 0);
    for (uint64_t i = 1; i <= kAtOnce; ++i) {
      ASSERT_EQ(Send(0, 64, static_cast<uint32_t>(i), i), 0);
    }
    const int all = round * static_cast<int>(kAtOnce);
    const auto other = std::async(std::launch::async, poll_until, all);
    poll_until(all);
    other.wait();
    for (uint64_t i = 1; i <= kAtOnce; ++i) EXPECT_EQ(Next(cq_[0]).wr_id, i);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(read, kRounds * static_cast<int>(kAtOnce));
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = nullptr;
  EXPECT_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
}

TEST_F(Verbs, RegionsWithAddressesOfTheirOwn) {
  // A region whose first byte is at 0, and one that is registered anew with other memory.
  // Expect: peers reach both by the addresses given.
  Connect();
  ibv_mr* const zero = ibv_reg_mr_iova2(pd_, memory_.data() + 1024, 64, 0, kEverything);
  ASSERT_NE(zero, nullptr);
  Put(0, "zero");
  ibv_sge sge = At(0, 5);
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.wr.rdma.rkey = zero->rkey;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(qp_[0], &wr, &bad), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  EXPECT_STREQ(memory_.data() + 1024, "zero");
  ASSERT_EQ(
      ibv_rereg_mr(zero, IBV_REREG_MR_CHANGE_TRANSLATION, nullptr, memory_.data() + 2048, 64, 0),
      0);
  wr.wr.rdma.rkey = zero->rkey;
  wr.wr.rdma.remote_addr = reinterpret_cast<uint64_t>(memory_.data() + 2048);
  ASSERT_EQ(ibv_post_send(qp_[0], &wr, &bad), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  EXPECT_STREQ(memory_.data() + 2048, "zero");
  EXPECT_EQ(ibv_dereg_mr(zero), 0);
}

TEST_F(Verbs, ConnectedToItself) {
  // A queue pair is its own peer (IBTA 9.6.1.2 allows it): sends, a megabyte written, a read.
  // Expect: its receives take its sends, in order; then, closed with a send posted, nothing hangs.
  std::vector<char> large(2 << 20, 'a');
  std::fill_n(large.begin(), 1 << 20, 'b');
  ibv_mr* const mr = ibv_reg_mr(pd_, large.data(), large.size(), kEverything);
  ASSERT_NE(mr, nullptr);
  ASSERT_EQ(ToInit(qp_[0]), 0);
  for (uint64_t id : {1, 2}) ASSERT_EQ(Receive(0, 100 * id, 8, id), 0);
  ASSERT_EQ(ToRtr(qp_[0], qp_[0]->qp_num), 0);
  ASSERT_EQ(ToRts(qp_[0]), 0);
  Put(0, "self");
  for (uint64_t id : {1, 2}) {
    ASSERT_EQ(Send(0, 0, 5, 10 + id), 0);
    const ibv_wc first = Next(cq_[0]), second = Next(cq_[0]);
    EXPECT_EQ(first.status, IBV_WC_SUCCESS);
    EXPECT_EQ(second.status, IBV_WC_SUCCESS);
    EXPECT_EQ(first.wr_id + second.wr_id, id + 10 + id);
    EXPECT_STREQ(memory_.data() + 100 * id, "self");
  }
  const auto from = reinterpret_cast<uint64_t>(large.data());
  for (const ibv_wr_opcode opcode : {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ}) {
    ibv_sge sge{from, 1 << 20, mr->lkey};
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.wr.rdma = {from + (1 << 20), mr->rkey};
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(qp_[0], &wr, &bad), 0);
    EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
    EXPECT_EQ(std::count(large.begin(), large.end(), 'b'), 2 << 20);
  }
  ASSERT_EQ(Send(0, 0, 5, 20), 0);
  ASSERT_EQ(ibv_destroy_qp(qp_[0]), 0);
  qp_[0] = nullptr;
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

TEST_F(Verbs, TransitionsThatAreNone) {
  // Expect: EINVAL, as ib_modify_qp_is_ok() says, and nothing changed.
  EXPECT_EQ(ToRts(qp_[0]), EINVAL);
  EXPECT_EQ(ToRtr(qp_[0], qp_[1]->qp_num), EINVAL);
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  EXPECT_EQ(ibv_modify_qp(qp_[0], &attr, IBV_QP_STATE), EINVAL);  // without its port
  attr.port_num = 2;
  EXPECT_EQ(ibv_modify_qp(qp_[0], &attr, kInitMask), EINVAL);  // of which there is none
  EXPECT_EQ(Receive(0, 0, 8, 1), EINVAL);
  EXPECT_EQ(ToInit(qp_[0]), 0);
  EXPECT_EQ(Receive(0, 0, 8, 1), 0);
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = cq_[0];
  init.qp_type = IBV_QPT_RAW_PACKET;
  EXPECT_EQ(ibv_create_qp(pd_, &init), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(ibv_dealloc_pd(pd_), EBUSY);
}

}  // namespace
}  // namespace verbena::dropin
