// SPDX-License-Identifier: Apache-2.0
// Datagrams of the simulated network by itself: lost, twice and out of order, as the seed decides.
#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fallback/io/datagrams.h"
#include "fallback/io/sim_network.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

constexpr Nanos kMs = 1'000'000;

Ip IpOf(const char* text) { return Address::FromIp(text, 0)->bytes(); }

struct Net {
  explicit Net(const SimOptions& options)
      : network(options), a(network.NewWorld("10.0.0.1")), b(network.NewWorld("10.0.0.2")) {
    from = *a->datagrams()->Open(0, false);
    to = *b->datagrams()->Open(0, false);
  }
  uint16_t port() { return b->streams().Local(to).port(); }
  int Send(const std::string& text, const char* ip = "10.0.0.2", uint16_t at = 0) {
    const iovec piece{const_cast<char*>(text.data()), text.size()};
    Outgoing d;
    d.to = {.ip = IpOf(ip), .port = at != 0 ? at : port()};
    d.pieces = {&piece, 1};
    return a->datagrams()->Send(from, {&d, 1});
  }
  std::vector<std::string> Receive(Socket socket) {
    std::vector<std::string> all;
    std::array<std::byte, 16> room;
    Incoming d;
    d.into = room;
    while (b->datagrams()->Receive(socket, {&d, 1}) == 1) {
      EXPECT_EQ(d.from, IpOf("10.0.0.1"));
      to_of_last = d.to;
      cut = d.cut;
      all.emplace_back(reinterpret_cast<const char*>(room.data()), d.size);
    }
    return all;
  }
  SimNetwork network;
  std::unique_ptr<World> a, b;
  Socket from, to;
  Ip to_of_last = {};
  bool cut = false;
};

TEST(SimDatagrams, CalmOnesArriveInOrder) {
  Net net(SimOptions::Calm());
  for (const char* text : {"one", "two", "three"}) EXPECT_EQ(net.Send(text), 1);
  EXPECT_TRUE(net.Receive(net.to).empty());  // not before the latency is over
  net.network.Advance(kMs);
  EXPECT_EQ(net.Receive(net.to), (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_EQ(net.to_of_last, IpOf("10.0.0.2"));
  EXPECT_FALSE(net.cut);
}

TEST(SimDatagrams, WhatIsTooLongIsCut) {
  Net net(SimOptions::Calm());
  net.Send("seventeen letters");
  net.network.Advance(kMs);
  EXPECT_EQ(net.Receive(net.to), std::vector<std::string>{"seventeen letter"});
  EXPECT_TRUE(net.cut);
}

TEST(SimDatagrams, OthersAreLostTwiceAndOutOfOrder) {
  SimOptions options;
  options.seed = 3;
  options.would_block = 0;
  options.datagram_loss = options.datagram_duplication = 0.2;
  Net net(options);
  for (int i = 0; i < 100; ++i) net.Send(std::to_string(i + 100));
  net.network.Advance(10 * kMs);
  const std::vector<std::string> all = net.Receive(net.to);
  EXPECT_FALSE(std::is_sorted(all.begin(), all.end()));
  const SimInjected injected = net.network.injected();
  EXPECT_GT(injected.losses, 0u);
  EXPECT_GT(injected.duplicates, 0u);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 100 - injected.losses);
  EXPECT_EQ(all.size(), 100 - injected.losses + injected.duplicates);
}

TEST(SimDatagrams, AFullBufferDrops) {
  SimOptions options = SimOptions::Calm();
  options.datagram_capacity = 10;
  Net net(options);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(net.Send("four"), 1);
  net.network.Advance(kMs);
  EXPECT_EQ(net.Receive(net.to).size(), 2u);
}

TEST(SimDatagrams, NothingPassesAPartition) {
  Net net(SimOptions::Calm());
  net.network.Partition("10.0.0.1", "10.0.0.2", true);
  EXPECT_EQ(net.Send("lost"), 1);
  net.network.Partition("10.0.0.1", "10.0.0.2", false);
  net.network.Advance(kMs);
  EXPECT_TRUE(net.Receive(net.to).empty());
}

TEST(SimDatagrams, EachMemberOfAGroupGetsACopy) {
  constexpr uint16_t kPort = 5000;
  Net net(SimOptions::Calm());
  const Socket one = *net.b->datagrams()->Open(kPort, true);
  const Socket other = *net.b->datagrams()->Open(kPort, true);
  EXPECT_FALSE(net.b->datagrams()->Open(kPort, false).ok());
  for (const Socket socket : {one, other}) {
    EXPECT_TRUE(net.b->datagrams()->Join(socket, IpOf("224.1.2.3"), {}).ok());
  }
  net.Send("to all", "224.1.2.3", kPort);
  net.network.Advance(kMs);
  EXPECT_EQ(net.Receive(one), std::vector<std::string>{"to all"});
  EXPECT_EQ(net.to_of_last, IpOf("224.1.2.3"));
  EXPECT_TRUE(net.b->datagrams()->Leave(one, IpOf("224.1.2.3"), {}).ok());
  EXPECT_FALSE(net.b->datagrams()->Leave(one, IpOf("224.1.2.3"), {}).ok());
  net.Send("to one", "224.1.2.3", kPort);
  net.network.Advance(kMs);
  EXPECT_TRUE(net.Receive(one).empty());
  EXPECT_EQ(net.Receive(other), (std::vector<std::string>{"to all", "to one"}));
}

}  // namespace
}  // namespace verbena::io
