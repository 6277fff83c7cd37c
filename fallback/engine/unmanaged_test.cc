// SPDX-License-Identifier: Apache-2.0
// Queue pairs that verbs connects without a connection manager: started before their stream, and
// not told that their peer has gone (docs/decisions/0021-dropin.md).
#include <cerrno>

#include "fallback/engine/test_cable.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

class Unmanaged : public testing::Test {
 protected:
  Unmanaged() { w_.a.qp.SetUnmanaged(); }
  Wired w_;
  Memory from_{&w_.a, 64}, to_{&w_.b, 64};
};

TEST_F(Unmanaged, RequestsWaitForTheStream) {
  // A queue pair is started and posted to before it is connected.
  // Expect: nothing completes, and what was posted goes out once there is a stream.
  Side a, b({.number = 2});
  Memory from(&a, 64), to(&b, 64);
  EXPECT_EQ(a.Post(SendOf(from.sge(0, 8), 1)).error, PostError::kInvalidState);
  a.qp.SetUnmanaged();
  a.qp.Start();
  EXPECT_EQ(a.qp.state(), QpState::kRts);
  ASSERT_TRUE(a.Post(SendOf(from.sge(0, 8), 1)).ok());
  EXPECT_TRUE(a.qp.Gather(true, 0).empty());
  EXPECT_EQ(a.Sends(), "");
  b.PostReceive({.local = to.sge(), .id = 11});
  Cable cable(&a, &b);
  a.qp.Connected(OwnSession(true));
  b.qp.Connected(OwnSession(false));
  cable.Run();
  EXPECT_EQ(a.Sends() + ", " + b.Receives(), "1 SUCCESS, 11 SUCCESS");
}

TEST_F(Unmanaged, GoodbyeLeavesItAsItIs) {
  // The peer acknowledges a message and destroys its queue pair.
  // Expect: the message succeeds; receives stay posted, the state stays RTS, no event; the stream
  // is over. The next requests wait, and when the driver gives up they fail.
  w_.a.PostReceive({.local = from_.sge(), .id = 12});
  w_.b.PostReceive({.local = to_.sge(), .id = 11});
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  const size_t events = w_.a.events.size();
  w_.b.qp.Disconnect();
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends() + w_.a.Receives(), "1 SUCCESS");
  EXPECT_EQ(w_.a.qp.state(), QpState::kRts);
  EXPECT_EQ(w_.a.events.size(), events);
  ASSERT_TRUE(w_.a.qp.over());
  w_.a.qp.Detach();
  w_.a.qp.FlushPosted();
  EXPECT_EQ(w_.a.Receives(), "");
  ASSERT_TRUE(w_.a.Post(SendOf(from_.sge(0, 8), 2)).ok());
  ASSERT_TRUE(w_.a.Post(SendOf(from_.sge(0, 8), 3)).ok());
  w_.a.qp.FlushPosted();
  EXPECT_EQ(w_.a.Sends(), "");
  w_.a.qp.PeerLost("it left");
  EXPECT_EQ(w_.a.Sends(), "2 RETRY_EXC_ERR, 3 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.Receives(), "12 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.qp.state(), QpState::kErr);
}

TEST_F(Unmanaged, RequestsUnderWayWaitForTheTimer) {
  // The peer's process is killed while a message is unacknowledged.
  // Expect: nothing; RETRY_EXC_ERR when the driver gives up, as when no answer comes from a device.
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.a.Post(SendOf(from_.sge(0, 8), 2));
  w_.cable.Send(0);
  w_.cable.Cut(1, ECONNRESET);
  EXPECT_EQ(w_.a.Sends(), "");
  ASSERT_TRUE(w_.a.qp.over());
  w_.a.qp.Detach();
  w_.a.qp.PeerLost("it left");
  EXPECT_EQ(w_.a.Sends(), "1 RETRY_EXC_ERR, 2 WR_FLUSH_ERR");
}

TEST_F(Unmanaged, WithoutAStreamItFailsWhenTold) {
  // The driver gives up on a peer that never came: once with nothing posted, once with requests.
  // Expect: nothing happens; then the requests fail.
  Side a;
  Memory from(&a, 64);
  a.qp.SetUnmanaged();
  a.qp.Start();
  a.qp.PeerLost("it did not come");
  EXPECT_EQ(a.qp.state(), QpState::kRts);
  a.Post(SendOf(from.sge(0, 8), 1));
  a.qp.PeerLost("it did not come");
  EXPECT_EQ(a.Sends(), "1 RETRY_EXC_ERR");
  EXPECT_EQ(a.qp.state(), QpState::kErr);
}

TEST_F(Unmanaged, ResetForgetsIt) {
  // Expect: after RESET it is as any other: the end of the stream is an error again.
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kReset}).ok());
  EXPECT_FALSE(w_.a.qp.unmanaged());
}

}  // namespace
}  // namespace verbena::engine
