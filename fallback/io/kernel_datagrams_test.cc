// SPDX-License-Identifier: Apache-2.0
// Kernel UDP over loopback, both families on one socket.
#include "fallback/io/kernel_datagrams.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "fallback/io/kernel_streams.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

Ip IpOf(const char* text) { return Address::FromIp(text, 0)->bytes(); }

class KernelDatagramsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "::1") {
      const int probe = socket(AF_INET6, SOCK_STREAM, 0);
      const bool there = probe >= 0 && [&] {
        const Address at = *Address::FromIp("::1", 0);
        return bind(probe, at.raw(), at.length) == 0;
      }();
      if (probe >= 0) close(probe);
      if (!there) GTEST_SKIP() << "this machine has no ::1";
    }
    absl::StatusOr<Socket> from = datagrams_.Open(0, false), to = datagrams_.Open(0, false);
    ASSERT_TRUE(from.ok() && to.ok());
    from_ = *from;
    to_ = *to;
  }
  void TearDown() override {
    if (from_ >= 0) streams_.Close(from_, false);
    if (to_ >= 0) streams_.Close(to_, false);
  }
  uint16_t port() const { return streams_.Local(to_).port(); }
  int Receive(std::span<Incoming> into) {
    pollfd ready{.fd = to_, .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ready, 1, 5000), 1);
    return datagrams_.Receive(to_, into);
  }

  KernelDatagrams datagrams_;
  KernelStreams streams_;
  Socket from_ = kNoSocket, to_ = kNoSocket;
};

TEST_P(KernelDatagramsTest, ABatchArrivesWithItsFacts) {
  std::array<std::string, 3> texts = {"one", "", "three"};
  std::array<iovec, 3> pieces;
  std::array<Outgoing, 3> out;
  for (size_t i = 0; i < 3; ++i) {
    pieces[i] = {texts[i].data(), texts[i].size()};
    out[i].to = {.ip = IpOf(GetParam()), .port = port()};
    out[i].from = IpOf(GetParam());
    out[i].traffic_class = 0x20;
    out[i].hop_limit = 7;
    out[i].pieces = {&pieces[i], 1};
  }
  ASSERT_EQ(datagrams_.Send(from_, out), 3);
  std::array<std::array<std::byte, 8>, 4> rooms;
  std::array<Incoming, 4> in;
  for (size_t i = 0; i < 4; ++i) in[i].into = rooms[i];
  ASSERT_EQ(Receive(in), 3);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(std::string(reinterpret_cast<char*>(rooms[i].data()), in[i].size), texts[i]);
    EXPECT_FALSE(in[i].cut);
    EXPECT_EQ(in[i].from, IpOf(GetParam()));
    EXPECT_EQ(in[i].to, IpOf(GetParam()));
    EXPECT_EQ(in[i].traffic_class, 0x20);
    EXPECT_EQ(in[i].hop_limit, 7);
  }
  EXPECT_EQ(datagrams_.Receive(to_, in), -EAGAIN);
}

TEST_P(KernelDatagramsTest, WhatIsTooLongIsCut) {
  std::string text = "nine bytes";
  const iovec piece{text.data(), text.size()};
  Outgoing out;
  out.to = {.ip = IpOf(GetParam()), .port = port()};
  out.pieces = {&piece, 1};
  ASSERT_EQ(datagrams_.Send(from_, {&out, 1}), 1);
  std::array<std::byte, 4> room;
  Incoming in;
  in.into = room;
  ASSERT_EQ(Receive({&in, 1}), 1);
  EXPECT_EQ(in.size, 4u);
  EXPECT_TRUE(in.cut);
}

INSTANTIATE_TEST_SUITE_P(Families, KernelDatagramsTest, testing::Values("127.0.0.1", "::1"),
                         [](const auto& info) {
                           return std::string(info.param) == "::1" ? "v6" : "v4";
                         });

// Nobody can be reached there: lost, like any other, and the next one goes.
TEST(KernelDatagrams, WhatCannotGoHasGone) {
  KernelDatagrams datagrams;
  const Socket socket = *datagrams.Open(0, false);
  std::vector<char> bytes(70'000);  // over what UDP can carry
  const iovec piece{bytes.data(), bytes.size()};
  Outgoing out;
  out.to = {.ip = IpOf("127.0.0.1"), .port = 9};
  out.pieces = {&piece, 1};
  EXPECT_EQ(datagrams.Send(socket, {&out, 1}), 1);
  KernelStreams().Close(socket, false);
}

TEST(KernelDatagrams, APortIsSharedOnlyAmongThoseWhoWantThat) {
  KernelDatagrams datagrams;
  KernelStreams streams;
  const Socket one = *datagrams.Open(0, true);
  const uint16_t port = streams.Local(one).port();
  const absl::StatusOr<Socket> other = datagrams.Open(port, true);
  EXPECT_TRUE(other.ok());
  EXPECT_FALSE(datagrams.Open(port, false).ok());
  streams.Close(one, false);
  if (other.ok()) streams.Close(*other, false);
}

}  // namespace
}  // namespace verbena::io
