// SPDX-License-Identifier: Apache-2.0
// Part of verbs_test: fork, contexts that go first, and very many queue pairs.
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/dropin/verbs_fixture.h"

namespace verbena::dropin {
namespace {

TEST_F(Verbs, AChildAfterFork) {
  // A connected process forks, and the child uses what it inherits, then opens the device itself.
  // Expect: EIO for the one, success for the other; the parent's connection is not disturbed.
  Connect();
  const pid_t child = fork();
  if (child == 0) {
    ibv_wc wc;
    int failed = 0;
    failed |= Send(0, 0, 8, 1) == EIO ? 0 : 1;
    failed |= ibv_poll_cq(cq_[0], 1, &wc) == -EIO ? 0 : 2;
    failed |= ibv_dereg_mr(mr_) == EIO ? 0 : 4;
    failed |= ibv_destroy_qp(qp_[0]) == EIO ? 0 : 8;
    ibv_qp_ex* const qp = ibv_qp_to_qp_ex(qp_[0]);
    ibv_wr_start(qp);
    ibv_wr_send(qp);
    ibv_wr_set_sge(qp, mr_->lkey, reinterpret_cast<uint64_t>(memory_.data()), 8);
    failed |= ibv_wr_complete(qp) == EIO ? 0 : 32;
    ibv_poll_cq_attr how{};
    failed |= ibv_start_poll(reinterpret_cast<ibv_cq_ex*>(cq_[0]), &how) == EIO ? 0 : 64;
    failed |= ibv_resize_cq(cq_[0], 128) == EIO ? 0 : 128;
    ibv_context* const own = Open();
    ibv_pd* const pd = own == nullptr ? nullptr : ibv_alloc_pd(own);
    failed |= pd != nullptr && ibv_dealloc_pd(pd) == 0 && ibv_close_device(own) == 0 ? 0 : 16;
    _exit(failed);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_EQ(Receive(1, 0, 8, 2), 0);
  ASSERT_EQ(Send(0, 16, 8, 3), 0);
  EXPECT_EQ(Next(cq_[1]).status, IBV_WC_SUCCESS);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_SUCCESS);
}

TEST_F(Verbs, AContextThatIsClosedBeforeItsObjects) {
  // A device is closed with a connected queue pair open, whose peer then makes a mistake.
  // Expect: the event has a place to go to; what the context has ends with its last object.
  ibv_context* const closed = Open();
  ASSERT_NE(closed, nullptr);
  const int fd = closed->async_fd;
  ibv_pd* const pd = ibv_alloc_pd(closed);
  ibv_cq* const cq = ibv_create_cq(closed, 16, nullptr, nullptr, 0);
  ibv_qp_init_attr attr{};
  attr.send_cq = attr.recv_cq = cq;
  attr.cap = {4, 4, 1, 1, 0};
  attr.qp_type = IBV_QPT_RC;
  ASSERT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = ibv_create_qp(pd, &attr);
  ASSERT_NE(qp_[1], nullptr);
  Connect();
  ASSERT_EQ(ibv_close_device(closed), 0);
  ASSERT_NE(fcntl(fd, F_GETFD), -1);
  ibv_sge sge = At(0, 8);
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.wr.rdma = {0, mr_->rkey + 1};
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(qp_[0], &wr, &bad), 0);
  EXPECT_EQ(Next(cq_[0]).status, IBV_WC_REM_ACCESS_ERR);
  pollfd told{fd, POLLIN, 0};
  EXPECT_EQ(poll(&told, 1, 20'000), 1);
  EXPECT_EQ(ibv_destroy_qp(qp_[1]), 0);
  qp_[1] = nullptr;
  EXPECT_EQ(ibv_destroy_cq(cq), 0);
  EXPECT_NE(fcntl(fd, F_GETFD), -1);
  EXPECT_EQ(ibv_dealloc_pd(pd), 0);
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

// Before any device is opened.
constexpr rlim_t kFewDescriptors = 100;
[[maybe_unused]] const bool few_descriptors = [] {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = kFewDescriptors;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}();

TEST_F(Verbs, DescriptorsForManyQueuePairs) {
  // A device was opened, by a program that may have more descriptors than it asked for.
  // Expect: it has them: each queue pair needs one.
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
  EXPECT_GT(limit.rlim_cur, kFewDescriptors);
}

TEST_F(Verbs, AThousandQueuePairs) {
  // Expect: numbers that differ, and none that comes again at once.
  std::vector<ibv_qp*> all;
  std::vector<uint32_t> numbers;
  for (int i = 0; i < 1000; ++i) {
    all.push_back(NewQueuePair(cq_[0]));
    ASSERT_NE(all.back(), nullptr) << i;
    numbers.push_back(all.back()->qp_num);
  }
  std::sort(numbers.begin(), numbers.end());
  EXPECT_EQ(std::unique(numbers.begin(), numbers.end()), numbers.end());
  const uint32_t last = all.back()->qp_num;
  for (ibv_qp* qp : all) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  ibv_qp* const next = NewQueuePair(cq_[0]);
  EXPECT_NE(next->qp_num, last);
  EXPECT_EQ(ibv_destroy_qp(next), 0);
}

}  // namespace
}  // namespace verbena::dropin
