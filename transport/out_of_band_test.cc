// SPDX-License-Identifier: Apache-2.0
// Addresses as bytes that somebody else carried, and the choice of devices from two of them.
#include "transport/out_of_band.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena {
namespace {

using testing::HasSubstr;

Ip V4(uint8_t c, uint8_t d) { return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, c, d}; }

Way Roce(const std::string& name, const Ip& gid, uint8_t type = 2) {
  return {.device = name, .link = Link::kRoce, .gid = gid, .gid_type = type, .mtu = 5};
}

Contact OfContext(uint8_t nonce, std::vector<Way> ways, Rdma rdma = Rdma::kAuto) {
  Contact c{.rdma = rdma, .nonce = {nonce}, .ways = {{.device = "tcp"}}};
  c.ways.insert(c.ways.end(), ways.begin(), ways.end());
  return c;
}

Contact OfQueuePair() {
  return {.queue_pair = true,
          .nonce = {1, 2, 3},
          .ways = {{.device = "tcp", .port = 7471, .addresses = {V4(0, 1), V4(1, 1)}}}};
}

TEST(Contacts, ComeBackAsTheyWere) {
  for (const Contact& c :
       {OfQueuePair(), OfContext(9, {Roce("mlx5_0", V4(0, 1)), Roce("mlx5_1", V4(1, 1))})}) {
    const absl::StatusOr<Contact> back = DecodeContact(Encode(c));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->queue_pair, c.queue_pair);
    EXPECT_EQ(back->nonce, c.nonce);
    EXPECT_EQ(back->ways, c.ways);
  }
}

// A host with more than fits: reasons and devices are left out, and it still decodes.
TEST(Contacts, NeverLongerThanTheMaximum) {
  Contact c = OfContext(1, {});
  for (int i = 0; i < 40; ++i) c.ways.push_back(Roce("a_rather_long_name", V4(0, 1)));
  c.absent.assign(20, {std::string(300, 'x'), false, std::string(300, 'y')});
  Contact q = OfQueuePair();
  q.ways[0].addresses.assign(100, V4(0, 1));
  for (const Contact& each : {c, q}) {
    const std::string text = Encode(each);
    EXPECT_LE(text.size(), kMaxContact);
    EXPECT_TRUE(DecodeContact(text).ok());
  }
}

// Expect: what found no room is named, and a reason is whole at the end that gives it.
TEST(Contacts, WaysWithoutRoomAreTold) {
  std::vector<Way> ways;
  for (int i = 0; i < 30; ++i) {
    Way way{.device = "mlx5_" + std::to_string(i), .link = Link::kRoce};
    way.gid[15] = static_cast<uint8_t>(i);
    ways.push_back(way);
  }
  Contact whole = OfContext(1, ways);
  whole.absent = {{"down", false, std::string(150, 'x')}};
  const absl::StatusOr<Contact> seen = AsSeen(whole);
  ASSERT_TRUE(seen.ok());
  const size_t told = seen->ways.size();
  EXPECT_GT(told, 8u);
  EXPECT_EQ(seen->ways, DecodeContact(Encode(whole))->ways);
  ASSERT_EQ(told + seen->absent.size(), whole.ways.size() + 1);
  EXPECT_EQ(seen->absent.front().reason, std::string(150, 'x'));
  for (size_t i = told; i < whole.ways.size(); ++i) {
    EXPECT_EQ(seen->absent[i - told + 1].device, whole.ways[i].device);
    EXPECT_EQ(seen->absent[i - told + 1].reason, "the address has no room for it");
  }
  const absl::StatusOr<DevicePair> choice = ChooseDevices(*seen, OfContext(2, {ways[29]}));
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->candidates.size(), whole.ways.size() + 1);
}

TEST(Contacts, EveryTruncationIsRefused) {
  const std::string text = Encode(OfQueuePair());
  for (size_t n = 0; n < text.size(); ++n) {
    EXPECT_FALSE(DecodeContact(text.substr(0, n)).ok()) << n;
  }
  EXPECT_FALSE(DecodeContact(text + "x").ok());
}

TEST(Contacts, EveryChangedByteIsRefused) {
  for (const Contact& c : {OfQueuePair(), OfContext(9, {Roce("mlx5_0", V4(0, 1))})}) {
    const std::string text = Encode(c);
    for (size_t i = 0; i < text.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string changed = text;
        changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
        EXPECT_FALSE(DecodeContact(changed).ok()) << i << " " << bit;
      }
    }
  }
}

// With a CRC that is right, any content: never a crash, and what is accepted is in range.
TEST(Contacts, AnyContentWithTheRightCrc) {
  uint64_t state = 1;
  const auto random = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint8_t>(state >> 56);
  };
  int accepted = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::string text =
        Encode(round % 2 == 0 ? OfQueuePair() : OfContext(9, {Roce("mlx5_0", V4(0, 1))}));
    text.resize(text.size() - 4);
    for (int n = random() % 4; n >= 0; --n) text[5 + random() % (text.size() - 5)] = random();
    uint32_t crc = ~uint32_t{0};
    for (const char c : text) {
      crc ^= static_cast<uint8_t>(c);
      for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    crc = ~crc;
    for (int i = 3; i >= 0; --i) text.push_back(static_cast<char>(crc >> (8 * i)));
    const absl::StatusOr<Contact> c = DecodeContact(text);
    if (!c.ok()) continue;
    ++accepted;
    EXPECT_LE(static_cast<int>(c->rdma), 2);
    for (const Way& way : c->ways) {
      EXPECT_LE(static_cast<int>(way.link), 3);
      EXPECT_LT(way.qp_number, 1u << 24);
      for (const char byte : way.device) EXPECT_TRUE(byte >= ' ' && byte <= '~');
    }
  }
  EXPECT_GT(accepted, 1000);  // nonces and GIDs may be anything
}

TEST(Contacts, LaterVersionSaysSo) {
  std::string text = Encode(OfQueuePair());
  text[4] = 9;
  const absl::Status status = DecodeContact(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("version 9"));
}

// Both ends: same pair, or same refusal.
DevicePair Both(const Contact& a, const Contact& b) {
  const absl::StatusOr<DevicePair> mine = ChooseDevices(a, b), theirs = ChooseDevices(b, a);
  EXPECT_TRUE(mine.ok()) << mine.status();
  EXPECT_TRUE(theirs.ok()) << theirs.status();
  if (!mine.ok() || !theirs.ok()) return {};
  EXPECT_EQ(mine->device, theirs->peer_device);
  EXPECT_EQ(mine->peer_device, theirs->device);
  return *mine;
}

TEST(ChooseDevices, TheNearestPair) {
  const Contact a = OfContext(1, {Roce("a0", V4(0, 1)), Roce("a1", V4(1, 1))});
  const Contact b = OfContext(2, {Roce("b0", V4(7, 1)), Roce("b1", V4(1, 2))});
  const DevicePair pair = Both(a, b);
  EXPECT_EQ(pair.device, "a1");
  EXPECT_EQ(pair.peer_device, "b1");
  EXPECT_EQ(pair.candidates.size(), 3u);
}

// Equally near: the order of the lower nonce's end, whoever asks.
TEST(ChooseDevices, TiesGoByTheLowerNonce) {
  const std::vector<Way> twins = {Roce("d0", V4(0, 1)), Roce("d1", V4(0, 1))};
  for (uint8_t nonce : {1, 3}) Both(OfContext(nonce, twins), OfContext(2, twins));
}

TEST(ChooseDevices, NothingInCommonIsTcp) {
  const Contact roce = OfContext(1, {Roce("r", V4(0, 1))});
  const Ip v6 = {0xfd};
  for (const Way& other :
       {Way{.device = "i", .link = Link::kInfiniband}, Way{.device = "w", .link = Link::kIwarp},
        Roce("v1", V4(0, 1), 1), Roce("six", v6)}) {
    EXPECT_EQ(Both(roce, OfContext(2, {other})).device, "tcp") << other.device;
  }
  const Contact iwarp = OfContext(3, {Way{.device = "siw0", .link = Link::kIwarp}});
  const Contact more = OfContext(4, {Way{.device = "siw1", .link = Link::kIwarp}});
  EXPECT_EQ(Both(iwarp, more).device, "tcp");
  Way here{.device = "ib0", .link = Link::kInfiniband, .gid = {0xfe, 0x80}};
  Way there{.device = "ib1", .link = Link::kInfiniband, .gid = {0xfe, 0x80, 0, 1}};
  EXPECT_EQ(Both(OfContext(5, {here}), OfContext(6, {there})).device, "tcp");
}

TEST(ChooseDevices, WishesOfEitherEnd) {
  const std::vector<Way> ways = {Roce("r", V4(0, 1))};
  EXPECT_EQ(Both(OfContext(1, ways), OfContext(2, ways)).device, "r");
  EXPECT_EQ(Both(OfContext(1, ways, Rdma::kOff), OfContext(2, ways)).device, "tcp");
  for (const auto& [a, b] :
       {std::pair(OfContext(1, ways, Rdma::kRequired), OfContext(2, {})),
        std::pair(OfContext(1, ways, Rdma::kRequired), OfContext(2, ways, Rdma::kOff))}) {
    EXPECT_EQ(ChooseDevices(a, b).status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ChooseDevices(b, a).status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(ChooseDevices(a, b).status().message()), HasSubstr("not r: "));
  }
}

TEST(CheckPeer, KindsMustMatch) {
  Contact tcp = OfQueuePair();
  Contact roce = tcp;
  roce.nonce = {9};
  roce.ways = {Roce("mlx5_0", V4(0, 1))};
  const absl::Status status = CheckPeer(tcp, roce);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("on mlx5_0 (RoCE)"));
}

}  // namespace
}  // namespace verbena
