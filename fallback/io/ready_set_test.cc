// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/ready_set.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace verbena::io {
namespace {

class ReadySetTest : public testing::Test {
 protected:
  ReadySetTest() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0); }
  ~ReadySetTest() override {
    for (const int end : ends) close(end);
  }
  bool readable() const {
    pollfd fd{set->fd(), POLLIN, 0};
    return poll(&fd, 1, 0) == 1;
  }
  size_t Look() { return set->Wait(tags, 0); }

  std::unique_ptr<ReadySet> set = *ReadySet::Create();
  std::array<int, 2> ends{};
  std::array<uint64_t, 4> tags{};
};

TEST_F(ReadySetTest, TellsWhichSocketIsReadyUntilItIsRead) {
  ASSERT_TRUE(set->Add(ends[0], 7, false));
  EXPECT_EQ(Look(), 0u);
  EXPECT_FALSE(readable());
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(readable());
    ASSERT_EQ(set->Wait(tags, kNever), 1u);
    EXPECT_EQ(tags[0], 7u);
  }
  char x;
  ASSERT_EQ(read(ends[0], &x, 1), 1);
  EXPECT_FALSE(readable());
}

TEST_F(ReadySetTest, WritableOnlyIfAsked) {
  ASSERT_TRUE(set->Add(ends[0], 7, false));
  EXPECT_EQ(Look(), 0u);
  set->Change(ends[0], 8, true);
  ASSERT_EQ(Look(), 1u);
  EXPECT_EQ(tags[0], 8u);
  set->Remove(ends[0]);
  EXPECT_EQ(Look(), 0u);
}

TEST_F(ReadySetTest, TheBellEndsASleepAndIsNoSocket) {
  for (int i = 0; i < 2; ++i) {
    set->Ring();
    set->Ring();
    EXPECT_TRUE(readable());
    EXPECT_EQ(set->Wait(tags, kNever), 0u);
    set->Silence();
    set->Silence();
    EXPECT_FALSE(readable());
  }
}

TEST_F(ReadySetTest, ADeadlineThatHasPassed) { EXPECT_EQ(set->Wait(tags, 1), 0u); }

TEST_F(ReadySetTest, ASocketThatIsNone) { EXPECT_FALSE(set->Add(-1, 7, false)); }

}  // namespace
}  // namespace verbena::io
