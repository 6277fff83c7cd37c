// SPDX-License-Identifier: Apache-2.0
// As verbs_program.cc, of unreliable connections: what they need and take, and what becomes of
// messages that nobody takes.
#include <cerrno>

#include "tests/dropin/verbs_fixture.h"

namespace verbena::dropin {
namespace {

class UnreliableVerbs : public Verbs {
 protected:
  UnreliableVerbs() : Verbs(IBV_QPT_UC) {}
  int Post(ibv_qp* qp, ibv_wr_opcode opcode, const ibv_sge& from, uint64_t id) {
    ibv_sge sge = from;
    ibv_send_wr wr{};
    wr.wr_id = id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.imm_data = 77;
    wr.wr.rdma.remote_addr = reinterpret_cast<uint64_t>(memory_.data() + 1024);
    wr.wr.rdma.rkey = mr_->rkey;
    ibv_send_wr* bad = nullptr;
    const int error = ibv_post_send(qp, &wr, &bad);
    EXPECT_EQ(bad, error == 0 ? nullptr : &wr);
    return error;
  }
  ibv_qp_state StateOf(ibv_qp* qp) {
    ibv_qp_attr attr{};
    ibv_qp_init_attr init{};
    EXPECT_EQ(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
    EXPECT_EQ(init.qp_type, qp->qp_type);
    return attr.qp_state;
  }
};

TEST_F(UnreliableVerbs, SendsAndWritesArrive) {
  Connect();
  Put(0, "unreliable");
  EXPECT_EQ(Receive(1, 512, 64, 11), 0);
  EXPECT_EQ(Receive(1, 512, 64, 12), 0);
  EXPECT_EQ(Post(qp_[0], IBV_WR_SEND, At(0, 10), 1), 0);
  EXPECT_EQ(Post(qp_[0], IBV_WR_RDMA_WRITE_WITH_IMM, At(0, 10), 2), 0);
  for (uint64_t id : {1, 2}) {
    const ibv_wc wc = Next(cq_[0]);
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(Next(cq_[1]).wr_id, 11u);
  const ibv_wc last = Next(cq_[1]);
  EXPECT_EQ(last.wr_id, 12u);
  EXPECT_EQ(last.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
  EXPECT_EQ(last.imm_data, 77u);
  EXPECT_EQ(std::string(memory_.data() + 512, 10), "unreliable");
  EXPECT_EQ(std::string(memory_.data() + 1024, 10), "unreliable");
}

TEST_F(UnreliableVerbs, WithoutAReceiveAMessageIsLost) {
  // Expect: success, and the next one gets the receive that is posted then.
  Connect();
  EXPECT_EQ(Send(0, 0, 8, 1), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  Put(0, "second");
  EXPECT_EQ(Receive(1, 512, 64, 11), 0);
  EXPECT_EQ(Send(0, 0, 6, 2), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  EXPECT_EQ(Next(cq_[1]).byte_len, 6u);
  EXPECT_EQ(std::string(memory_.data() + 512, 6), "second");
}

TEST_F(UnreliableVerbs, ItsTransitionsNeedLess) {
  // Expect: attributes of reliable ones alone are EINVAL, as ib_modify_qp_is_ok() says; so are
  // reads and atomics at the post.
  ibv_qp_attr attr{};
  ASSERT_EQ(ToInit(qp_[0]), 0);
  attr.qp_state = IBV_QPS_RTR;
  attr.ah_attr.port_num = 1;
  EXPECT_EQ(ibv_modify_qp(qp_[0], &attr, kRtrMask), EINVAL);
  ASSERT_EQ(ToRtr(qp_[0], qp_[1]->qp_num), 0);
  attr.qp_state = IBV_QPS_RTS;
  EXPECT_EQ(ibv_modify_qp(qp_[0], &attr, kRtsMask), EINVAL);
  ASSERT_EQ(ToRts(qp_[0]), 0);
  for (const ibv_wr_opcode opcode : {IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD,
                                     IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_SEND_WITH_INV}) {
    EXPECT_EQ(Post(qp_[0], opcode, At(0, 8), 1), EINVAL) << opcode;
  }
}

TEST_F(UnreliableVerbs, AFailedRequestStopsTheSendQueueAlone) {
  // Expect: LOC_PROT_ERR, SQE, flush; from there RTS goes on.
  Connect();
  ibv_sge wrong = At(0, 8);
  wrong.lkey ^= 0x100;
  EXPECT_EQ(Post(qp_[0], IBV_WR_SEND, wrong, 1), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_LOC_PROT_ERR);
  EXPECT_EQ(StateOf(qp_[0]), IBV_QPS_SQE);
  EXPECT_EQ(Post(qp_[0], IBV_WR_SEND, At(0, 8), 2), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_WR_FLUSH_ERR);
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTS;
  attr.cur_qp_state = IBV_QPS_SQE;
  ASSERT_EQ(ibv_modify_qp(qp_[0], &attr, IBV_QP_STATE | IBV_QP_CUR_STATE), 0);
  EXPECT_EQ(Receive(1, 512, 64, 11), 0);
  EXPECT_EQ(Send(0, 0, 8, 3), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  EXPECT_EQ(Next(cq_[1]).wr_id, 11u);
}

TEST_F(UnreliableVerbs, NobodyMissesAPeerThatHasGone) {
  // It is destroyed. Expect: sends go on to succeed, and the state is RTS, as on a device.
  Connect();
  EXPECT_EQ(Receive(1, 512, 64, 11), 0);
  EXPECT_EQ(Send(0, 0, 8, 1), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  EXPECT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = nullptr;
  for (uint64_t id = 2; id < 40; ++id) {
    EXPECT_EQ(Send(0, 0, 8, id), 0);
    const ibv_wc wc = Next(cq_[0]);
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(StateOf(qp_[0]), IBV_QPS_RTS);
}

TEST_F(UnreliableVerbs, AnotherTypeIsNoPeer) {
  // A reliable and an unreliable one that name each other.
  // Expect: what the former sends fails as with nobody there, what the latter sends is lost.
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = NewQueuePair(cq_[1], IBV_QPT_RC);
  ASSERT_NE(qp_[1], nullptr);
  Connect();
  EXPECT_EQ(Send(1, 0, 8, 1), 0);
  EXPECT_EQ(Send(0, 0, 8, 2), 0);
  EXPECT_EQ(Next(cq_[1]).status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
}

TEST_F(UnreliableVerbs, ToItself) {
  ASSERT_EQ(ToInit(qp_[0]), 0);
  ASSERT_EQ(ToRtr(qp_[0], qp_[0]->qp_num), 0);
  ASSERT_EQ(ToRts(qp_[0]), 0);
  EXPECT_EQ(Receive(0, 512, 64, 11), 0);
  EXPECT_EQ(Send(0, 0, 8, 1), 0);
  EXPECT_EQ(Next(cq_[0]).wr_id + Next(cq_[0]).wr_id, 12u);
}

}  // namespace
}  // namespace verbena::dropin
