// SPDX-License-Identifier: Apache-2.0
// Memory windows and invalidation: ibv_bind_mw(3), ibv_alloc_mw(3), ibv_post_send(3); IBTA 10.6.7
// (type 2 windows), 9.4.1.1 (send with invalidate).
#include <string>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

constexpr Access kReadWrite = Access::kRemoteRead | Access::kRemoteWrite;

class Windows : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    const Capabilities can = client().devices()[0]->capabilities();
    if (!can.memory_windows) GTEST_SKIP() << "capability: memory_windows";
  }

  // Lends [offset, offset + length) of the server's region; the completion of the bind.
  WorkCompletion Bind(Pair& pair, MemoryWindow& window, uint64_t offset, uint64_t length,
                      Access access = kReadWrite, const MemoryRegion* region = nullptr) {
    if (region == nullptr) region = &pair.server->region;
    Post(pair.server->qp, {.opcode = Opcode::kBindWindow,
                           .id = 77,
                           .bind = {.window = &window,
                                    .region = region,
                                    .address = region->address() + offset,
                                    .length = length,
                                    .access = access}});
    return WaitOne(pair.server->cq);
  }
  WorkCompletion Run(Pair& pair, Opcode opcode, RemoteAddress remote) {
    Post(pair.client->qp, OneSided(opcode, *pair.client, remote, 1));
    return WaitOne(pair.client->cq);
  }
};
CONFORMANCE_RUN(Windows);

TEST_P(Windows, LendPartOfARegion) {
  // Bind 4096 bytes; the peer writes and reads through the window's key.
  // Expect: the bind completes as kBindWindow; the peer reaches those bytes.
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  const WorkCompletion bound = Bind(pair, window, 4096, 4096);
  EXPECT_THAT(bound, Succeeded(77));
  EXPECT_EQ(bound.opcode, WcOpcode::kBindWindow);
  EXPECT_EQ(window.remote().address, pair.server->region.address() + 4096);
  EXPECT_EQ(window.remote().length, 4096u);
  EXPECT_NE(window.remote().key, pair.server->region.remote_key());
  Fill(pair.client->bytes(0, 8), 1);
  EXPECT_THAT(Run(pair, Opcode::kWrite, window.remote().at(8)), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(4104, 8), HasPattern(1));
  EXPECT_THAT(Run(pair, Opcode::kRead, window.remote().at(8)), Succeeded(1));
}

struct WindowRow {
  std::string name;
  Opcode opcode;
  Access access;
  uint64_t offset;
  bool allowed;
};

const WindowRow kWindowRows[] = {
    {"WriteAllowed", Opcode::kWrite, Access::kRemoteWrite, 0, true},
    {"WriteRefused", Opcode::kWrite, Access::kRemoteRead, 0, false},
    {"ReadAllowed", Opcode::kRead, Access::kRemoteRead, 0, true},
    {"ReadRefused", Opcode::kRead, Access::kRemoteWrite, 0, false},
    {"AtomicAllowed", Opcode::kFetchAdd, Access::kRemoteAtomic, 0, true},
    {"AtomicRefused", Opcode::kFetchAdd, kReadWrite, 0, false},
    {"LastBytes", Opcode::kWrite, kReadWrite, 4088, true},
    {"OnePast", Opcode::kWrite, kReadWrite, 4089, false},
    {"Behind", Opcode::kRead, kReadWrite, 4096, false},
    {"Before", Opcode::kRead, kReadWrite, ~0ull, false},
};

CONFORMANCE_TABLE(WindowRights, WindowRow, kWindowRows);

TEST_P(WindowRights, WindowHasItsOwnRightsAndBounds) {
  // The region would allow everything everywhere; the window lends 4096 bytes with some rights.
  // Expect: success inside with the right; REM_ACCESS_ERR otherwise.
  const Capabilities can = client().devices()[0]->capabilities();
  if (!can.memory_windows) GTEST_SKIP() << "capability: memory_windows";
  if (IsAtomic(row().opcode) && !can.atomics) GTEST_SKIP() << "capability: atomics";
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  Post(pair.server->qp, {.opcode = Opcode::kBindWindow,
                         .id = 77,
                         .bind = {.window = &window,
                                  .region = &pair.server->region,
                                  .address = pair.server->region.address() + 8192,
                                  .length = 4096,
                                  .access = row().access}});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(77));
  Post(pair.client->qp, OneSided(row().opcode, *pair.client, window.remote().at(row().offset), 1));
  EXPECT_THAT(WaitOne(pair.client->cq),
              Completed(1, row().allowed ? WcStatus::kSuccess : WcStatus::kRemoteAccessError));
}

TEST_P(Windows, RegionWithoutConsent) {
  // The region lacks kWindowBind.
  // Expect: MW_BIND_ERR and ERR (IBTA 10.6.7.2).
  Pair pair = MakePair(*this);
  MemoryRegion region = Check(
      pair.server->pd.Register(pair.server->buffer.bytes(), Access::kLocalWrite | kReadWrite));
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096, kReadWrite, &region),
              Completed(77, WcStatus::kWindowBindError));
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
}

TEST_P(Windows, WritableWindowNeedsAWritableRegion) {
  // Remote write through a window over a region without local write.
  // Expect: MW_BIND_ERR (IBTA 10.6.7.2).
  Pair pair = MakePair(*this);
  MemoryRegion region = Check(pair.server->pd.Register(pair.server->buffer.bytes(),
                                                       Access::kRemoteRead | Access::kWindowBind));
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096, Access::kRemoteWrite, &region),
              Completed(77, WcStatus::kWindowBindError));
}

TEST_P(Windows, OutsideTheRegion) {
  // Binds that begin before, end behind, or wrap.
  // Expect: MW_BIND_ERR each time.
  const struct {
    uint64_t offset, length;
  } outside[] = {{~0ull, 8}, {(256 << 10) - 7, 8}, {0, (256 << 10) + 1}, {8, ~0ull}};
  for (const auto& [offset, length] : outside) {
    Pair pair = MakePair(*this);
    MemoryWindow window = Check(pair.server->pd.AllocateWindow());
    EXPECT_THAT(Bind(pair, window, offset, length), Completed(77, WcStatus::kWindowBindError));
  }
}

TEST_P(Windows, OfAnotherDomain) {
  // Expect: MW_BIND_ERR for a window of one domain and a region of another.
  Pair pair = MakePair(*this);
  ProtectionDomain other = Check(pair.server->device.AllocateProtectionDomain());
  MemoryWindow window = Check(other.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Completed(77, WcStatus::kWindowBindError));
}

TEST_P(Windows, BoundWindowCannotBeBoundAgain) {
  // Expect: MW_BIND_ERR: a type 2 window must have been invalidated (IBTA 10.6.7.2, o10-37.2.30).
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  EXPECT_THAT(Bind(pair, window, 8192, 4096), Completed(77, WcStatus::kWindowBindError));
}

TEST_P(Windows, LengthZeroIsNoBinding) {
  // Expect: MW_BIND_ERR: only type 1 windows are unbound so (IBTA 10.6.7.2, o10-37.2.40).
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 0), Completed(77, WcStatus::kWindowBindError));
}

TEST_P(Windows, EachBindHasItsOwnKey) {
  // Bind, invalidate, bind elsewhere; the peer uses the new key, then the old one.
  // Expect: the keys differ, the new one works, the old one is dead.
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  const RemoteBuffer former = window.remote();
  Post(pair.server->qp, {.opcode = Opcode::kLocalInvalidate, .id = 78, .invalidate = former.key});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(78));
  EXPECT_THAT(Bind(pair, window, 8192, 4096), Succeeded(77));
  EXPECT_NE(window.remote().key, former.key);
  EXPECT_THAT(Run(pair, Opcode::kWrite, window.remote().at(0)), Succeeded(1));
  EXPECT_THAT(Run(pair, Opcode::kWrite, former.at(0)), Completed(1, WcStatus::kRemoteAccessError));
}

TEST_P(Windows, BelongsToTheQueuePairThatBoundIt) {
  // The key is used over another connection to the same domain.
  // Expect: REM_ACCESS_ERR there (type 2B, IBTA 10.6.7.2.3); it still works on its own.
  Pair pair = MakePair(*this);
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  Post(ours, OneSided(Opcode::kWrite, *pair.client, window.remote().at(0), 5));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(5, WcStatus::kRemoteAccessError));
  EXPECT_THAT(Run(pair, Opcode::kWrite, window.remote().at(0)), Succeeded(1));
}

TEST_P(Windows, PeerInvalidates) {
  // SendWithInvalidate of the window's key.
  // Expect: the receive says which key; the key is dead from then on; binding anew works.
  if (!client().devices()[0]->capabilities().send_with_invalidate) {
    GTEST_SKIP() << "capability: send_with_invalidate";
  }
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  const RemoteBuffer former = window.remote();
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 5});
  Post(pair.client->qp, {.opcode = Opcode::kSendWithInvalidate,
                         .local = pair.client->slice(0, 8),
                         .id = 6,
                         .invalidate = former.key});
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_THAT(received, Succeeded(5));
  EXPECT_TRUE(received.has_invalidated);
  EXPECT_FALSE(received.has_immediate);
  EXPECT_EQ(received.immediate_or_key, former.key);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(6));
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  EXPECT_THAT(Run(pair, Opcode::kRead, window.remote().at(0)), Succeeded(1));
  EXPECT_THAT(Run(pair, Opcode::kRead, former.at(0)), Completed(1, WcStatus::kRemoteAccessError));
}

TEST_P(Windows, OwnerInvalidates) {
  // LocalInvalidate of the window's key at the end that bound it.
  // Expect: it completes as kLocalInvalidate; the key is dead.
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  Post(pair.server->qp,
       {.opcode = Opcode::kLocalInvalidate, .id = 5, .invalidate = window.remote().key});
  const WorkCompletion done = WaitOne(pair.server->cq);
  EXPECT_THAT(done, Succeeded(5));
  EXPECT_EQ(done.opcode, WcOpcode::kLocalInvalidate);
  EXPECT_THAT(Run(pair, Opcode::kRead, window.remote().at(0)),
              Completed(1, WcStatus::kRemoteAccessError));
}

TEST_P(Windows, InvalidatingARegionIsRefused) {
  // SendWithInvalidate of a region's key, then of a key that does not exist.
  // Expect: an error at the sender (RFC 5040 4.8: STag cannot be invalidated), and the region's
  // key still works over another connection.
  if (!client().devices()[0]->capabilities().send_with_invalidate) {
    GTEST_SKIP() << "capability: send_with_invalidate";
  }
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  for (uint32_t key : {server_end.region.remote_key(), 0xdeadbeefu}) {
    QueuePair ours = client_end.NewQueuePair(), theirs = server_end.NewQueuePair();
    Connect(*this, ours, theirs);
    PostReceive(theirs, {.local = server_end.slice(0, 8), .id = 1});
    Post(ours, {.opcode = Opcode::kSendWithInvalidate,
                .local = client_end.slice(0, 8),
                .id = 2,
                .invalidate = key});
    EXPECT_THAT(WaitOne(client_end.cq), Completed(2, WcStatus::kRemoteAccessError));
    const WorkCompletion received = WaitOne(server_end.cq);
    EXPECT_EQ(received.id, 1u);
    EXPECT_FALSE(received.ok());
  }
  Connect(*this, client_end.qp, server_end.qp);
  Post(client_end.qp, OneSided(Opcode::kRead, client_end, server_end.at(0), 3));
  EXPECT_THAT(WaitOne(client_end.cq), Succeeded(3));
}

TEST_P(Windows, PeerOfAnotherQueuePairCannotInvalidate) {
  // SendWithInvalidate of the window's key over another connection to the same domain.
  // Expect: REM_ACCESS_ERR there, the receive fails; the window still works where it was bound
  // (type 2B, IBTA 10.6.7.2.6).
  if (!client().devices()[0]->capabilities().send_with_invalidate) {
    GTEST_SKIP() << "capability: send_with_invalidate";
  }
  Pair pair = MakePair(*this);
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  PostReceive(theirs, {.local = pair.server->slice(8192, 8), .id = 5});
  Post(ours, {.opcode = Opcode::kSendWithInvalidate,
              .local = pair.client->slice(0, 8),
              .id = 6,
              .invalidate = window.remote().key});
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(6, WcStatus::kRemoteAccessError));
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_EQ(received.id, 5u);
  EXPECT_FALSE(received.ok());
  EXPECT_FALSE(received.has_invalidated);
  EXPECT_THAT(Run(pair, Opcode::kWrite, window.remote().at(0)), Succeeded(1));
}

TEST_P(Windows, AnotherQueuePairCannotInvalidate) {
  // LocalInvalidate of the window's key on another queue pair of the same domain.
  // Expect: MW_BIND_ERR there; the window still works where it was bound.
  Pair pair = MakePair(*this);
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  Post(theirs, {.opcode = Opcode::kLocalInvalidate, .id = 5, .invalidate = window.remote().key});
  EXPECT_THAT(WaitOne(pair.server->cq), Completed(5, WcStatus::kWindowBindError));
  EXPECT_THAT(Run(pair, Opcode::kRead, window.remote().at(0)), Succeeded(1));
}

TEST_P(Windows, InvalidationCompletesInItsTurn) {
  // A write of 4 MiB, then the invalidation of a window, which needs nothing from the peer.
  // Expect: completions in posting order (IBTA 10.8.3.3), and the key is dead afterwards.
  constexpr uint32_t kSize = 4 << 20;
  Pair pair = MakePair(*this, Both({.memory = kSize}));
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  Fill(pair.server->buffer.bytes(), 1);
  const SendWr requests[] = {
      {.opcode = Opcode::kWrite,
       .local = pair.server->slice(0, kSize),
       .remote = pair.client->at(0),
       .id = 5},
      {.opcode = Opcode::kLocalInvalidate, .id = 6, .invalidate = window.remote().key}};
  Check(pair.server->qp.PostSend(requests));
  EXPECT_THAT(WaitFor(pair.server->cq, 2), testing::ElementsAre(Succeeded(5), Succeeded(6)));
  EXPECT_THAT(pair.client->buffer.bytes(), HasPattern(1));
  EXPECT_THAT(Run(pair, Opcode::kRead, window.remote().at(0)),
              Completed(1, WcStatus::kRemoteAccessError));
}

TEST_P(Windows, BoundRegionCannotBeClosed) {
  // Expect: EBUSY while a window is bound to the region; fine after the window was closed.
  Pair pair = MakePair(*this);
  Buffer target(4096);
  MemoryRegion region = Check(pair.server->pd.Register(target.bytes(), kEverything));
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096, kReadWrite, &region), Succeeded(77));
  EXPECT_THAT(region.Close(), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Run(pair, Opcode::kWrite, window.remote().at(0)), Succeeded(1));
  Check(window.Close());
  Check(region.Close());
}

TEST_P(Windows, ClosingAWindowKillsItsKey) {
  // Expect: REM_ACCESS_ERR after Close.
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_THAT(Bind(pair, window, 0, 4096), Succeeded(77));
  const RemoteBuffer former = window.remote();
  Check(window.Close());
  EXPECT_THAT(Run(pair, Opcode::kRead, former.at(0)), Completed(1, WcStatus::kRemoteAccessError));
}

TEST_P(Windows, BindIsOrderedWithWhatFollows) {
  // The server binds and sends the key in one post; the peer uses the key when it has it.
  // Expect: it works: requests take effect in order.
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  PostReceive(pair.client->qp, {.local = pair.client->slice(4096, 8), .id = 1});
  const SendWr requests[] = {{.opcode = Opcode::kBindWindow,
                              .id = 2,
                              .bind = {.window = &window,
                                       .region = &pair.server->region,
                                       .address = pair.server->region.address(),
                                       .length = 4096,
                                       .access = kReadWrite}},
                             {.opcode = Opcode::kSend, .local = pair.server->slice(0, 8), .id = 3}};
  Check(pair.server->qp.PostSend(requests));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(Run(pair, Opcode::kWrite, window.remote().at(0)), Succeeded(1));
  EXPECT_THAT(WaitFor(pair.server->cq, 2), testing::ElementsAre(Succeeded(2), Succeeded(3)));
}

}  // namespace
}  // namespace verbena::conformance
