// SPDX-License-Identifier: Apache-2.0
// Local keys, bounds and rights of what a request itself names: IBTA 10.6.3, 11.6.2 (Local
// Protection Error). A wrong one is no refusal of the post but the request's completion.
#include <string>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::ElementsAre;

enum class Wrong { kKey, kEnd, kBegin, kDomain, kClosed, kReadOnly, kSecondEntry };

struct WrongRow {
  std::string name;
  Opcode opcode;
  Wrong wrong;
};

std::string NameOf(Wrong wrong) {
  constexpr const char* kNames[] = {"Key",    "End",      "Begin",      "OtherDomain",
                                    "Closed", "ReadOnly", "SecondEntry"};
  return kNames[static_cast<int>(wrong)];
}

// A list of entries of which one is wrong, and what it needs to stay so.
struct BadList {
  BadList(End& end, Wrong wrong) : other(Check(end.device.AllocateProtectionDomain())) {
    Sge bad = end.slice(0, 8);
    switch (wrong) {
      case Wrong::kKey:
        bad.key ^= 0x100;
        break;
      case Wrong::kEnd:
        bad.address += end.buffer.size() - 7;
        break;
      case Wrong::kBegin:
        bad.address -= 1;
        break;
      case Wrong::kDomain:
        region = Check(other.Register(end.buffer.bytes(), kEverything));
        break;
      case Wrong::kClosed:
        region = Check(end.pd.Register(end.buffer.bytes(), kEverything));
        break;
      case Wrong::kReadOnly:
        region = Check(end.pd.Register(end.buffer.bytes(), Access::kRemoteRead));
        break;
      case Wrong::kSecondEntry:
        bad.length = 4;
        break;
    }
    if (region.is_open()) bad.key = region.local_key();
    if (wrong == Wrong::kClosed) Check(region.Close());
    entries.push_back(bad);
    if (wrong == Wrong::kSecondEntry) entries.push_back({bad.address + 4, 4, bad.key ^ 0x100});
  }

  ProtectionDomain other;
  MemoryRegion region;
  std::vector<Sge> entries;  // 8 bytes in all
};

std::vector<WrongRow> Requests() {
  std::vector<WrongRow> rows;
  for (Opcode opcode :
       {Opcode::kSend, Opcode::kWrite, Opcode::kRead, Opcode::kCompareSwap, Opcode::kFetchAdd}) {
    for (Wrong wrong : {Wrong::kKey, Wrong::kEnd, Wrong::kBegin, Wrong::kDomain, Wrong::kClosed,
                        Wrong::kReadOnly, Wrong::kSecondEntry}) {
      const bool fills = opcode != Opcode::kSend && opcode != Opcode::kWrite;
      if (wrong == Wrong::kReadOnly && !fills) continue;  // gathering only reads
      if (wrong == Wrong::kSecondEntry && IsAtomic(opcode)) continue;
      rows.push_back({Name(opcode) + NameOf(wrong), opcode, wrong});
    }
  }
  return rows;
}

CONFORMANCE_TABLE(LocalProtection, WrongRow, Requests());

TEST_P(LocalProtection, RequestFailsInItsTurn) {
  // A good write, then a request with a wrong local entry, then another write.
  // Expect: success, LOC_PROT_ERR, flush; the queue pair is in ERR and the peer is told.
  if (IsAtomic(row().opcode) && !client().devices()[0]->capabilities().atomics) {
    GTEST_SKIP() << "capability: atomics";
  }
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(4096, 100), .id = 9});
  BadList bad(*pair.client, row().wrong);
  Fill(pair.client->bytes(0, 8), 1);
  const auto before = pair.client->bytes(0, 8);
  const std::vector<std::byte> former(before.begin(), before.end());
  SendWr request = OneSided(row().opcode, *pair.client, pair.server->at(64), 2);
  request.local = SgeList(bad.entries);
  const SendWr requests[] = {OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1), request,
                             OneSided(Opcode::kWrite, *pair.client, pair.server->at(128), 3)};
  EXPECT_THAT(pair.client->qp.PostSend(requests), Posted(3, PostError::kNone));
  EXPECT_THAT(WaitFor(pair.client->cq, 3),
              ElementsAre(Succeeded(1), Completed(2, WcStatus::kLocalProtectionError), Flushed(3)));
  EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
  EXPECT_FALSE(pair.client->qp.cause().ok());
  EXPECT_THAT(WaitOne(pair.server->cq), Flushed(9));
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_THAT(pair.server->bytes(0, 8), HasPattern(1));
  // A sink's good entries may have been filled before the bad one was met; IBTA promises nothing of
  // what a failed read leaves in its own list.
  const bool half = row().opcode == Opcode::kRead && row().wrong == Wrong::kSecondEntry;
  const size_t first = half ? 4 : 0;
  EXPECT_THAT(std::vector(former.begin() + first, former.end()),
              testing::ElementsAreArray(pair.client->bytes(first, 8 - first)));
  if (row().opcode == Opcode::kSend || row().opcode == Opcode::kWrite) {
    // A sink is judged when the answer comes: by then what follows may have been sent.
    EXPECT_THAT(pair.server->bytes(128, 8), IsZero());
  }
}

std::vector<WrongRow> Receives() {
  std::vector<WrongRow> rows;
  for (Wrong wrong : {Wrong::kKey, Wrong::kEnd, Wrong::kBegin, Wrong::kDomain, Wrong::kClosed,
                      Wrong::kReadOnly, Wrong::kSecondEntry}) {
    rows.push_back({NameOf(wrong), Opcode::kSend, wrong});
  }
  return rows;
}

CONFORMANCE_TABLE(ReceiveProtection, WrongRow, Receives());

TEST_P(ReceiveProtection, MessageFails) {
  // A message meets a receive with a wrong local entry.
  // Expect: LOC_PROT_ERR at the receiver, REM_OP_ERR at the sender (IBTA 9.9.3: the responder
  // could not finish it), what is behind flushed at both ends, no byte written.
  Pair pair = MakePair(*this);
  BadList bad(*pair.server, row().wrong);
  PostReceive(pair.server->qp, {.local = SgeList(bad.entries), .id = 1});
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 2});
  Fill(pair.client->bytes(0, 8), 1);
  for (uint64_t id : {3, 4}) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
  }
  EXPECT_THAT(WaitFor(pair.server->cq, 2),
              ElementsAre(Completed(1, WcStatus::kLocalProtectionError), Flushed(2)));
  EXPECT_THAT(WaitFor(pair.client->cq, 2),
              ElementsAre(Completed(3, WcStatus::kRemoteOperationError), Flushed(4)));
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
  EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
}

CONFORMANCE_SUITE(LocalKeys);

TEST_P(LocalKeys, UnusedTailOfAReceiveIsNotChecked) {
  // The message fits into the good first entry; the second entry's key is wrong.
  // Expect: success: keys are checked where bytes go (IBTA 10.6.3).
  Pair pair = MakePair(*this);
  Sge entries[] = {pair.server->slice(0, 64), pair.server->slice(64, 64)};
  entries[1].key ^= 0x100;
  Fill(pair.client->bytes(0, 64), 1);
  PostReceive(pair.server->qp, {.local = SgeList(entries), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 64), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(0, 64), HasPattern(1));
}

TEST_P(LocalKeys, InlineDataNeedsNone) {
  // Inline data with a key that does not exist (ibv_post_send(3), IBV_SEND_INLINE).
  // Expect: success.
  Pair pair = MakePair(*this);
  uint64_t value = 42;
  Post(pair.client->qp, {.opcode = Opcode::kWrite,
                         .local = Sge{reinterpret_cast<uint64_t>(&value), 8, 0xdeadbeef},
                         .remote = pair.server->at(0),
                         .id = 1,
                         .flags = SendFlags::kInline});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_EQ(pair.server->buffer.word(0), 42u);
}

TEST_P(LocalKeys, SendingFromReadOnlyMemory) {
  // A region without any right, over memory mapped read-only.
  // Expect: reading locally is always allowed: it can be sent and written from.
  Pair pair = MakePair(*this);
  Buffer source(4096);
  Fill(source.bytes(), 1);
  source.Protect(PROT_READ);
  MemoryRegion region = Check(pair.client->pd.Register(source.bytes(), Access::kLocalRead));
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 4096), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = region.slice(0, 4096), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(0, 4096), HasPattern(1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
}

}  // namespace
}  // namespace verbena::conformance
