// SPDX-License-Identifier: Apache-2.0
// Streams of a simulated network, which cuts them into pieces, seen through a capture.
#include <errno.h>

#include <functional>
#include <random>
#include <string>

#include "fallback/io/sim_network.h"
#include "fallback/pcap/capture.h"
#include "fallback/pcap/test_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::pcap {
namespace {

constexpr io::Nanos kStep = 100'000;

io::Address Ip(const char* ip, uint16_t port = 0) { return *io::Address::FromIp(ip, port); }

struct Words {
  std::vector<std::string> said;
  std::string all;  // what is yet to be sent
  size_t heard = 0;
  void Say(std::string frame) {
    all += frame;
    said.push_back(std::move(frame));
  }
};

class CapturedWorldTest : public testing::TestWithParam<bool> {
 protected:
  bool one_file() const { return GetParam(); }

  void Connect() {
    auto listener = called_->streams().Listen(Ip("10.0.0.2", 7471), 4);
    ASSERT_TRUE(listener.ok()) << listener.status();
    auto caller = caller_->streams().Connect(Ip("10.0.0.2", 7471), {});
    ASSERT_TRUE(caller.ok()) << caller.status();
    caller_socket_ = *caller;
    ASSERT_TRUE(Eventually([&] { return caller_->streams().ConnectResult(*caller).ok(); }));
    ASSERT_TRUE(Eventually([&] {
      called_socket_ = called_->streams().Accept(*listener);
      return called_socket_ >= 0;
    }));
    called_->streams().Close(*listener, false);
  }
  bool Eventually(const std::function<bool()>& done) {
    for (int i = 0; i < 100'000; ++i) {
      if (done()) return true;
      network_.Advance(kStep);
    }
    return false;
  }
  static void Send(io::World& world, io::Socket socket, Words& words) {
    if (words.all.empty()) return;
    const iovec data{words.all.data(), words.all.size()};
    const ssize_t count = world.streams().Send(socket, {&data, 1});
    if (count > 0) words.all.erase(0, static_cast<size_t>(count));
  }
  static void Receive(io::World& world, io::Socket socket, Words& words) {
    char buffer[5000];
    const iovec room[] = {{buffer, 100}, {buffer + 100, sizeof(buffer) - 100}};
    const ssize_t count = world.streams().Receive(socket, room);
    if (count > 0) words.heard += static_cast<size_t>(count);
  }

  io::SimNetwork network_{{.seed = 7}};
  const int fd_ = NewFile(), other_fd_ = NewFile();
  Capture capture_{std::make_unique<PacketFile>(fd_, "x", "a.1"), 1'000'000'000};
  Capture other_{std::make_unique<PacketFile>(other_fd_, "y", "b.2"), 0};
  std::unique_ptr<io::World> caller_ = Captured(network_.NewWorld("10.0.0.1"), &capture_);
  std::unique_ptr<io::World> called_ =
      Captured(network_.NewWorld("10.0.0.2"), one_file() ? &capture_ : &other_);
  io::Socket caller_socket_ = io::kNoSocket, called_socket_ = io::kNoSocket;
};

// Two ends say random frames to each other, over a network that delivers pieces; in one file, and
// in a file each. Expect: one packet a frame, in order, with numbers that follow each other and
// times that do not go back.
TEST_P(CapturedWorldTest, APacketAFrame) {
  Connect();
  std::mt19937 random(11);
  Words there, back;
  there.Say(MpaFrame(false, 20));
  back.Say(MpaFrame(true, 20));
  size_t sizes[2] = {40, 40};
  for (int i = 0; i < 200; ++i) {
    Words& words = i % 3 == 0 ? back : there;
    words.Say(Fpdu(14 + random() % (i % 7 == 0 ? 61000 : 300), static_cast<char>(i)));
    sizes[i % 3 == 0] += words.said.back().size();
  }
  ASSERT_TRUE(Eventually([&] {
    Send(*caller_, caller_socket_, there);
    Receive(*called_, called_socket_, there);
    Send(*called_, called_socket_, back);
    Receive(*caller_, caller_socket_, back);
    return there.heard == sizes[0] && back.heard == sizes[1];
  }));
  caller_->streams().FinishSending(caller_socket_);
  caller_->streams().Close(caller_socket_, false);
  called_->streams().Close(called_socket_, false);

  for (const int fd : {fd_, other_fd_}) {
    std::vector<std::string> seen_there, seen_back;
    uint32_t next[2] = {0, 0};
    int64_t at = 0;
    for (const ReadPacket& p : ReadPackets(Contents(fd))) {
      const bool is_back = p.from == 7471;
      EXPECT_TRUE(p.good_checksums);
      EXPECT_EQ(p.sequence, next[is_back]);
      EXPECT_GE(p.at, at);
      at = p.at;
      next[is_back] += static_cast<uint32_t>(p.payload.size()) + ((p.flags & 3) != 0 ? 1 : 0);
      if (!p.payload.empty()) (is_back ? seen_back : seen_there).push_back(p.payload);
    }
    if (fd == other_fd_ && one_file()) {
      EXPECT_TRUE(seen_there.empty());
      continue;
    }
    EXPECT_EQ(seen_there, there.said);
    EXPECT_EQ(seen_back, back.said);
  }
  EXPECT_GT(network_.injected().partial_reads, 10u);
}

// A connection breaks. Expect: the reset of who saw it, once in a file.
TEST_P(CapturedWorldTest, AReset) {
  Connect();
  caller_->streams().Close(caller_socket_, true);
  char byte;
  const iovec room{&byte, 1};
  ASSERT_TRUE(Eventually([&] {
    return called_->streams().Receive(called_socket_, {&room, 1}) == -ECONNRESET;
  }));
  called_->streams().Close(called_socket_, true);
  const auto resets = [](int fd, uint16_t from) {
    int count = 0;
    for (const ReadPacket& p : ReadPackets(Contents(fd))) {
      count += (p.flags & 4) != 0 && (p.from == 7471) == (from == 7471);
    }
    return count;
  };
  EXPECT_EQ(resets(fd_, 0), 1);
  EXPECT_EQ(resets(one_file() ? fd_ : other_fd_, 0), 1);
  EXPECT_EQ(resets(one_file() ? fd_ : other_fd_, 7471), 1);
}

// Worlds go with their sockets open, and the next ones have the same addresses. Expect: another
// connection, not the rest of the old one.
TEST_P(CapturedWorldTest, AWorldGoesWithItsSockets) {
  Connect();
  const io::Address first = caller_->streams().Local(caller_socket_);
  caller_.reset();
  called_.reset();
  io::SimNetwork network{{.seed = 7}};
  caller_ = Captured(network.NewWorld("10.0.0.1"), &capture_);
  called_ = Captured(network.NewWorld("10.0.0.2"), one_file() ? &capture_ : &other_);
  auto listener = called_->streams().Listen(Ip("10.0.0.2", 7471), 4);
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto caller = caller_->streams().Connect(Ip("10.0.0.2", 7471), first);
  ASSERT_TRUE(caller.ok()) << caller.status();
  bool connected = false;
  for (int i = 0; i < 1000 && !connected; ++i) {
    network.Advance(kStep);
    connected = caller_->streams().ConnectResult(*caller).ok();
  }
  ASSERT_TRUE(connected);
  std::vector<uint32_t> begins;
  for (const ReadPacket& p : ReadPackets(Contents(fd_))) {
    if (p.flags == 2) begins.push_back(p.sequence);
  }
  EXPECT_THAT(begins, testing::SizeIs(2));
  EXPECT_NE(begins.front(), begins.back());
  caller_.reset();
  called_.reset();
}

INSTANTIATE_TEST_SUITE_P(Files, CapturedWorldTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "One" : "Two"; });

}  // namespace
}  // namespace verbena::pcap
