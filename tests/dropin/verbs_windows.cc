// SPDX-License-Identifier: Apache-2.0
// Memory windows, as programs for libibverbs use them; and what invalidates.
#include "tests/dropin/verbs_fixture.h"

namespace verbena::dropin {
namespace {

class Windows : public Verbs {
 protected:
  void SetUp() override {
    Verbs::SetUp();
    Connect();
    Put(0, "lent");
  }
  // By end 0, into end 1's memory.
  ibv_wc Write(uint64_t address, uint32_t key) {
    ibv_sge sge = At(0, 5);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.wr.rdma = {address, key};
    ibv_send_wr* bad = nullptr;
    EXPECT_EQ(ibv_post_send(qp_[0], &wr, &bad), 0);
    return Next(cq_[0]);
  }
  uint64_t Address(size_t offset) { return At(offset, 0).addr; }
  ibv_mw_bind_info Lend(size_t offset, uint64_t length, unsigned access = IBV_ACCESS_REMOTE_WRITE) {
    return {mr_, Address(offset), length, access};
  }
  // By end 1, through ibv_post_send.
  int PostBind(ibv_mw* mw, uint32_t key, const ibv_mw_bind_info& info,
               ibv_send_wr* next = nullptr) {
    ibv_send_wr wr{};
    wr.wr_id = 7;
    wr.next = next;
    wr.opcode = IBV_WR_BIND_MW;
    wr.bind_mw.mw = mw;
    wr.bind_mw.rkey = key;
    wr.bind_mw.bind_info = info;
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp_[1], &wr, &bad);
  }
};

TEST_F(Windows, TypeOne) {
  // Bound, used, bound anew elsewhere, bound to nothing.
  // Expect: a new key each time, and the former one is refused.
  ibv_mw* const mw = ibv_alloc_mw(pd_, IBV_MW_TYPE_1);
  ASSERT_NE(mw, nullptr);
  const uint32_t before = mw->rkey;
  ibv_mw_bind bind{};
  bind.wr_id = 7;
  bind.send_flags = IBV_SEND_SIGNALED;
  bind.bind_info = Lend(1024, 64);
  ASSERT_EQ(ibv_bind_mw(qp_[1], mw, &bind), 0);
  EXPECT_EQ(mw->rkey, ibv_inc_rkey(before));
  ibv_wc wc = Next(cq_[1]);
  EXPECT_EQ(wc.wr_id, 7u);
  EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.opcode, IBV_WC_BIND_MW);
  EXPECT_EQ(Write(Address(1024), mw->rkey).status, IBV_WC_SUCCESS);
  EXPECT_STREQ(memory_.data() + 1024, "lent");
  EXPECT_EQ(ibv_dereg_mr(mr_), EBUSY);
  bind.bind_info = Lend(2048, 64, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ZERO_BASED);
  const uint32_t first = mw->rkey;
  ASSERT_EQ(ibv_bind_mw(qp_[1], mw, &bind), 0);
  EXPECT_EQ(Next(cq_[1]).status, IBV_WC_SUCCESS);
  EXPECT_NE(mw->rkey, first);
  EXPECT_EQ(Write(0, mw->rkey).status, IBV_WC_SUCCESS);
  EXPECT_STREQ(memory_.data() + 2048, "lent");
  bind.bind_info = {};
  ASSERT_EQ(ibv_bind_mw(qp_[1], mw, &bind), 0);
  EXPECT_EQ(Next(cq_[1]).status, IBV_WC_SUCCESS);
  EXPECT_EQ(Write(Address(1024), first).status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(ibv_dealloc_mw(mw), 0);
}

TEST_F(Windows, TypeTwoWithTheProgramsKeys) {
  // Bound, invalidated and bound again in one post, each time with the next key; then invalidated
  // by the peer.
  // Expect: the last key works, and no more when the peer has invalidated it.
  ibv_mw* const mw = ibv_alloc_mw(pd_, IBV_MW_TYPE_2);
  ASSERT_NE(mw, nullptr);
  const uint32_t first = ibv_inc_rkey(mw->rkey), second = ibv_inc_rkey(first);
  ibv_send_wr again{}, invalidate{};
  again.opcode = IBV_WR_BIND_MW;
  again.wr_id = 9;
  again.bind_mw.mw = mw;
  again.bind_mw.rkey = second;
  again.bind_mw.bind_info = Lend(2048, 64);
  invalidate.opcode = IBV_WR_LOCAL_INV;
  invalidate.wr_id = 8;
  invalidate.invalidate_rkey = first;
  invalidate.next = &again;
  ASSERT_EQ(PostBind(mw, first, Lend(1024, 64), &invalidate), 0);
  for (const uint64_t id : {7, 8, 9}) {
    const ibv_wc wc = Next(cq_[1]);
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(Write(Address(2048), second).status, IBV_WC_SUCCESS);
  EXPECT_STREQ(memory_.data() + 2048, "lent");
  ASSERT_EQ(Receive(1, 100, 8, 11), 0);
  ibv_sge sge = At(0, 5);
  ibv_send_wr send{};
  send.sg_list = &sge;
  send.num_sge = 1;
  send.opcode = IBV_WR_SEND_WITH_INV;
  send.invalidate_rkey = second;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(qp_[0], &send, &bad), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
  const ibv_wc wc = Next(cq_[1]);
  EXPECT_EQ(wc.wr_id, 11u);
  EXPECT_TRUE((wc.wc_flags & IBV_WC_WITH_INV) != 0);
  EXPECT_EQ(wc.invalidated_rkey, second);
  EXPECT_EQ(Write(Address(2048), second).status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(ibv_dealloc_mw(mw), 0);
}

TEST_F(Windows, WithAKeyOfAnotherWindow) {
  // Expect: MW_BIND_ERR (IBTA 10.6.7.2.3); windows of the other type are refused at once.
  ibv_mw* const mw = ibv_alloc_mw(pd_, IBV_MW_TYPE_2);
  ibv_mw* const one = ibv_alloc_mw(pd_, IBV_MW_TYPE_1);
  EXPECT_EQ(PostBind(one, ibv_inc_rkey(one->rkey), Lend(0, 8)), EINVAL);
  ibv_mw_bind bind{};
  bind.bind_info = Lend(0, 8);
  EXPECT_EQ(ibv_bind_mw(qp_[1], mw, &bind), EINVAL);
  ASSERT_EQ(PostBind(mw, mw->rkey ^ 0x100, Lend(1024, 64)), 0);
  EXPECT_EQ(Next(cq_[1]).status, IBV_WC_MW_BIND_ERR);
  EXPECT_EQ(ibv_dealloc_mw(mw), 0);
  EXPECT_EQ(ibv_dealloc_mw(one), 0);
}

TEST_F(Windows, ThatAreBuilt) {
  // ibv_wr_bind_mw twice and ibv_wr_local_inv between, in one go.
  ibv_mw* const mw = ibv_alloc_mw(pd_, IBV_MW_TYPE_2);
  const uint32_t first = ibv_inc_rkey(mw->rkey), second = ibv_inc_rkey(first);
  const ibv_mw_bind_info here = Lend(1024, 64), there = Lend(2048, 64);
  ibv_qp_ex* const qp = ibv_qp_to_qp_ex(qp_[1]);
  ibv_wr_start(qp);
  qp->wr_id = 1;
  qp->wr_flags = 0;
  ibv_wr_bind_mw(qp, mw, first, &here);
  qp->wr_id = 2;
  ibv_wr_local_inv(qp, first);
  qp->wr_id = 3;
  ibv_wr_bind_mw(qp, mw, second, &there);
  ASSERT_EQ(ibv_wr_complete(qp), 0);
  for (const uint64_t id : {1, 2, 3}) {
    const ibv_wc wc = Next(cq_[1]);
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  }
  EXPECT_EQ(Write(Address(2048), second).status, IBV_WC_SUCCESS);
  EXPECT_EQ(Write(Address(1024), first).status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(ibv_dealloc_mw(mw), 0);
}

}  // namespace
}  // namespace verbena::dropin
