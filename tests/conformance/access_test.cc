// SPDX-License-Identifier: Apache-2.0
// What a peer may do to registered memory: access rights, keys, bounds. ibv_reg_mr(3); IBTA
// 9.7.4 (responder's R_Key checks), 10.6.3; RFC 5040 8.1.1.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

// The server refused `id` of the client with `status`: both ends fail, the server is told why, and
// `untouched` was neither written nor handed out.
void ExpectRefused(ConformanceBase& test, Pair& pair, uint64_t id, WcStatus status, EventType event,
                   std::span<const std::byte> untouched) {
  const Capabilities can = pair.server->device.capabilities();
  EXPECT_THAT(test.WaitOne(pair.client->cq), Completed(id, test.Refusal(status)));
  EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
  if (!can.responder_events) event = EventType::kDisconnected;  // all that the target hears
  EXPECT_EQ(test.WaitForEvent(test.server(), event).context, pair.server.get());
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
  if (can.refusal_reasons) {
    EXPECT_FALSE(pair.server->qp.cause().ok());
  }
  EXPECT_FALSE(pair.client->qp.cause().ok());
  if (can.peer_counters) {
    EXPECT_GE(pair.server->qp.counters().protection_errors, 1u);
  }
  EXPECT_THAT(untouched, IsZero());
}

struct AccessRow {
  std::string name;
  Opcode opcode;
  Access access;
};

std::vector<AccessRow> AllAccesses() {
  std::vector<AccessRow> rows;
  for (Opcode opcode : kOneSided) {
    for (int bits = 0; bits < 16; ++bits) {
      const Access access = static_cast<Access>(bits);
      std::string name = Name(opcode) + "_";
      if (Allows(access, Access::kLocalWrite)) name += "Local";
      if (Allows(access, Access::kRemoteWrite)) name += "Write";
      if (Allows(access, Access::kRemoteRead)) name += "Read";
      if (Allows(access, Access::kRemoteAtomic)) name += "Atomic";
      rows.push_back({name, opcode, access});
    }
  }
  return rows;
}

CONFORMANCE_TABLE(AccessRights, AccessRow, AllAccesses());

TEST_P(AccessRights, RegionGrantsOrRefuses) {
  // Each one-sided operation against a region of each combination of rights.
  // Expect: remote write or atomic without local write cannot be registered; else success with the
  // right, REM_ACCESS_ERR without it.
  const auto& [name, opcode, access] = row();
  if (IsAtomic(opcode) && !client().devices()[0]->capabilities().atomics) {
    GTEST_SKIP() << "capability: atomics";
  }
  Pair pair = MakePair(*this);
  Buffer target(4096);
  absl::StatusOr<MemoryRegion> region = pair.server->pd.Register(target.bytes(), access);
  if ((access & (Access::kRemoteWrite | Access::kRemoteAtomic)) != Access::kLocalRead &&
      !Allows(access, Access::kLocalWrite)) {
    EXPECT_THAT(region, StatusIs(absl::StatusCode::kInvalidArgument));
    return;
  }
  Check(region.status());
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(opcode, *pair.client, region->remote().at(16), 1));
  if (Allows(access, Needs(opcode))) {
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
    EXPECT_EQ(target.word(16) == 0, opcode == Opcode::kRead);
    if (!server().devices()[0]->capabilities().peer_counters) return;
    const RegionCounters counters = region->counters();
    EXPECT_EQ(counters.remote_reads, opcode == Opcode::kRead);
    EXPECT_EQ(counters.remote_writes, opcode == Opcode::kWrite);
    EXPECT_EQ(counters.remote_atomics, IsAtomic(opcode));
  } else {
    ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                  target.bytes());
    EXPECT_THAT(pair.client->bytes(0, 8), HasPattern(1));  // a refused read brings nothing
  }
}

CONFORMANCE_TABLE(QueuePairRights, AccessRow, AllAccesses());

TEST_P(QueuePairRights, QueuePairNarrowsTheRegion) {
  // The same against a region that grants all, through a queue pair of each combination.
  // Expect: an operation that the queue pair does not take at all is an invalid request
  // (IBTA 9.9.3, ibv_modify_qp(3) qp_access_flags): REM_INV_REQ_ERR.
  const auto& [name, opcode, access] = row();
  if (IsAtomic(opcode) && !client().devices()[0]->capabilities().atomics) {
    GTEST_SKIP() << "capability: atomics";
  }
  if (!server().devices()[0]->capabilities().queue_pair_rights && !Allows(access, Needs(opcode))) {
    GTEST_SKIP() << "capability: queue_pair_rights";
  }
  Pair pair = MakePair(*this, {.server = {.qp_access = access}});
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(opcode, *pair.client, pair.server->at(16), 1));
  if (Allows(access, Needs(opcode))) {
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  } else {
    ExpectRefused(*this, pair, 1, WcStatus::kRemoteInvalidRequest, EventType::kQpRequestError,
                  pair.server->bytes(0, 4096));
  }
}

struct BoundsRow {
  std::string name;
  Opcode opcode;
  uint64_t offset;  // from the first byte of a region of 4096; wraps below it
  uint32_t length;
  bool inside;
};

std::vector<BoundsRow> AllBounds() {
  constexpr uint64_t kBefore = ~0ull;  // offset -1
  std::vector<BoundsRow> rows;
  for (Opcode opcode : {Opcode::kWrite, Opcode::kRead}) {
    const std::string name = Name(opcode);
    rows.push_back({name + "FirstByte", opcode, 0, 1, true});
    rows.push_back({name + "LastByte", opcode, 4095, 1, true});
    rows.push_back({name + "Whole", opcode, 0, 4096, true});
    rows.push_back({name + "OnePast", opcode, 4096, 1, false});
    rows.push_back({name + "OneBefore", opcode, kBefore, 1, false});
    rows.push_back({name + "AcrossTheEnd", opcode, 4090, 7, false});
    rows.push_back({name + "AcrossTheBegin", opcode, kBefore - 4, 100, false});
    rows.push_back({name + "OneTooLong", opcode, 0, 4097, false});
    rows.push_back({name + "MuchTooLong", opcode, 0, 200000, false});
    rows.push_back({name + "FarAway", opcode, 1ull << 40, 8, false});
    rows.push_back({name + "NothingFarAway", opcode, 1ull << 40, 0, true});
  }
  for (Opcode opcode : {Opcode::kCompareSwap, Opcode::kFetchAdd}) {
    const std::string name = Name(opcode);
    rows.push_back({name + "FirstWord", opcode, 0, 8, true});
    rows.push_back({name + "LastWord", opcode, 4088, 8, true});
    rows.push_back({name + "OnePast", opcode, 4096, 8, false});
    rows.push_back({name + "OneBefore", opcode, kBefore - 7, 8, false});
  }
  return rows;
}

CONFORMANCE_TABLE(Bounds, BoundsRow, AllBounds());

TEST_P(Bounds, EveryByteIsChecked) {
  // A region in the middle of a larger buffer, accesses at and over its edges.
  // Expect: success inside; REM_ACCESS_ERR and not a byte moved when a single one is outside.
  const BoundsRow& at = row();
  if (IsAtomic(at.opcode) && !client().devices()[0]->capabilities().atomics) {
    GTEST_SKIP() << "capability: atomics";
  }
  Pair pair = MakePair(*this);
  Buffer target(3 * 4096);
  MemoryRegion region = Check(pair.server->pd.Register(target.bytes(4096, 4096), kEverything));
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp,
       OneSided(at.opcode, *pair.client, region.remote().at(at.offset), 1, at.length));
  if (at.inside) {
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
    EXPECT_THAT(target.bytes(0, 4096), IsZero());
    EXPECT_THAT(target.bytes(8192, 4096), IsZero());
  } else {
    ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                  target.bytes());
  }
}

struct WrapRow {
  std::string name;
  Opcode opcode;
  uint64_t address;
  uint32_t length;
};

std::vector<WrapRow> AllWraps() {
  std::vector<WrapRow> rows;
  for (Opcode opcode : {Opcode::kWrite, Opcode::kRead}) {
    rows.push_back({Name(opcode) + "PastTheTop", opcode, ~0ull - 3, 8});
    rows.push_back({Name(opcode) + "ToTheTop", opcode, ~0ull - 7, 8});
    rows.push_back({Name(opcode) + "LongPastTheTop", opcode, ~0ull - 100000, 200000});
    rows.push_back({Name(opcode) + "Zero", opcode, 0, 8});
  }
  return rows;
}

CONFORMANCE_TABLE(AddressWrap, WrapRow, AllWraps());

TEST_P(AddressWrap, IsOutside) {
  // Addresses whose end wraps around 2^64 (RFC 5041 7.2: an error of its own).
  // Expect: REM_ACCESS_ERR.
  Pair pair = MakePair(*this);
  Post(pair.client->qp,
       OneSided(row().opcode, *pair.client,
                {.address = row().address, .key = pair.server->region.remote_key()}, 1,
                row().length));
  ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                pair.server->buffer.bytes());
}

struct KeyRow {
  std::string name;
  int bit;
};

std::vector<KeyRow> AllKeyBits() {
  std::vector<KeyRow> rows;
  for (int bit = 0; bit < 32; ++bit) rows.push_back({absl::StrCat("Bit", bit), bit});
  return rows;
}

CONFORMANCE_TABLE(Key, KeyRow, AllKeyBits());

TEST_P(Key, OffByOneBit) {
  // The right key with one bit changed.
  // Expect: REM_ACCESS_ERR for each of the 32 bits.
  Pair pair = MakePair(*this);
  RemoteAddress remote = pair.server->at(0);
  remote.key ^= 1u << row().bit;
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, remote, 1));
  ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                pair.server->buffer.bytes());
}

CONFORMANCE_SUITE(Keys);

TEST_P(Keys, OfAnotherProtectionDomain) {
  // The key of a region in another domain of the same device.
  // Expect: REM_ACCESS_ERR (IBTA 10.2.3: domains never meet).
  Pair pair = MakePair(*this);
  Buffer target(4096);
  ProtectionDomain other = Check(pair.server->device.AllocateProtectionDomain());
  MemoryRegion region = Check(other.Register(target.bytes(), kEverything));
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, region.remote().at(0), 1));
  ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                target.bytes());
}

TEST_P(Keys, OfAClosedRegion) {
  // A region is closed; its key is used.
  // Expect: REM_ACCESS_ERR, nothing written, though the memory is still there.
  Pair pair = MakePair(*this);
  Buffer target(4096);
  MemoryRegion region = Check(pair.server->pd.Register(target.bytes(), kEverything));
  const RemoteBuffer remote = region.remote();
  Check(region.Close());
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, remote.at(0), 1));
  ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                target.bytes());
}

TEST_P(Keys, OfAnUnboundWindow) {
  // A window that was never bound lends nothing.
  if (!client().devices()[0]->capabilities().memory_windows) {
    GTEST_SKIP() << "capability: memory_windows";
  }
  Pair pair = MakePair(*this);
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  Post(pair.client->qp,
       OneSided(Opcode::kRead, *pair.client,
                {.address = pair.server->region.address(), .key = window.remote().key}, 1));
  ExpectRefused(*this, pair, 1, WcStatus::kRemoteAccessError, EventType::kQpAccessError, {});
}

TEST_P(Keys, ZeroLengthNeedsNone) {
  // A write and a read of nothing with a key that does not exist, then real work.
  // Expect: success: no byte moves, no key is checked (IBTA 9.7.4, RFC 5041 5.2).
  Pair pair = MakePair(*this);
  for (Opcode opcode : {Opcode::kWrite, Opcode::kRead}) {
    Post(pair.client->qp, {.opcode = opcode, .remote = {.address = 1, .key = 0xdeadbeef}, .id = 1});
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  }
  Post(pair.client->qp, OneSided(Opcode::kRead, *pair.client, pair.server->at(0), 2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
}

TEST_P(Keys, OverlappingRegionsHaveTheirOwnRights) {
  // The same memory registered twice: to read and to write.
  // Expect: each key allows what its own registration does.
  Pair pair = MakePair(*this);
  Buffer target(4096);
  MemoryRegion readable = Check(pair.server->pd.Register(target.bytes(), Access::kRemoteRead));
  MemoryRegion writable =
      Check(pair.server->pd.Register(target.bytes(), Access::kLocalWrite | Access::kRemoteWrite));
  EXPECT_NE(readable.remote_key(), writable.remote_key());
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, writable.remote().at(0), 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  Post(pair.client->qp, OneSided(Opcode::kRead, *pair.client, readable.remote().at(0), 2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, readable.remote().at(64), 3));
  ExpectRefused(*this, pair, 3, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                target.bytes(64, 8));
}

TEST_P(Keys, ReadingIntoMemoryOpensItToNobody) {
  // A region that only this end may write, as the sink of reads; then the peer writes to it with
  // the key that the application has.
  // Expect: the reads bring their bytes, the write is refused (RFC 5040 4.4 has the answer of a
  // read be a write of the peer's to the sink: no reason to let it write otherwise).
  Pair pair = MakePair(*this);
  Buffer sink(8192);
  MemoryRegion region = Check(pair.server->pd.Register(sink.bytes(), Access::kLocalWrite));
  Fill(pair.client->bytes(0, 4096), 1);
  for (uint64_t id : {1, 2}) {
    Post(pair.server->qp, {.opcode = Opcode::kRead,
                           .local = region.slice((id - 1) * 2048, 2048),
                           .remote = pair.client->at((id - 1) * 2048),
                           .id = id});
    EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(id));
  }
  EXPECT_THAT(sink.bytes(0, 4096), HasPattern(1));
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, region.remote().at(4096), 3));
  ExpectRefused(*this, pair, 3, WcStatus::kRemoteAccessError, EventType::kQpAccessError,
                sink.bytes(4096, 4096));
}

TEST_P(Keys, OfOpenRegionsDiffer) {
  // 64 regions of the same memory, open at once.
  // Expect: as many remote keys, and local ones, on every device.
  Pair pair = MakePair(*this);
  Buffer target(4096);
  std::vector<MemoryRegion> regions;
  std::set<uint32_t> remote, local;
  for (int i = 0; i < 64; ++i) {
    regions.push_back(Check(pair.server->pd.Register(target.bytes(), kEverything)));
    remote.insert(regions.back().remote_key());
    local.insert(regions.back().slice(0, 1).key);
  }
  EXPECT_EQ(remote.size(), regions.size());
  EXPECT_EQ(local.size(), regions.size());
}

TEST_P(Keys, AreNeverTheSameTwice) {
  // 2000 registrations, each closed before the next.
  // Expect: no key comes again, so that a late peer cannot hit a new region, where the provider
  // makes the keys. A device's are its driver's: it may draw at random, or use one again at once.
  Pair pair = MakePair(*this);
  if (!pair.server->device.capabilities().unguessable_keys) {
    GTEST_SKIP() << "capability: unguessable_keys";
  }
  Buffer target(4096);
  std::vector<uint32_t> keys;
  for (int i = 0; i < 2000; ++i) {
    MemoryRegion region = Check(pair.server->pd.Register(target.bytes(), kEverything));
    keys.push_back(region.remote_key());
  }
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
}

TEST_P(Keys, IovaIsWhatPeersUse) {
  // A region registered with an iova of its own (ibv_reg_mr_iova(3)).
  // Expect: address(), slices and the peer all count from the iova.
  constexpr uint64_t kIova = 0x10000;
  Pair pair = MakePair(*this);
  Buffer target(4096);
  MemoryRegion region =
      Check(pair.server->pd.Register(target.bytes(), kEverything, {.iova = kIova}));
  EXPECT_EQ(region.address(), kIova);
  EXPECT_EQ(region.remote().address, kIova);
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client,
                                 {.address = kIova + 100, .key = region.remote_key()}, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(target.bytes(100, 8), HasPattern(1));
  PostReceive(pair.server->qp, {.local = region.slice(200, 8), .id = 2});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 3});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(2));
  EXPECT_THAT(target.bytes(200, 8), HasPattern(1));
}

}  // namespace
}  // namespace verbena::conformance
