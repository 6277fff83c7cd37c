// SPDX-License-Identifier: Apache-2.0
#include "rpc/frame.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rpc/envelope.h"
#include "rpc/send_ring.h"

namespace verbena::rpc {
namespace {

std::vector<std::byte> Encoded(const Frame& frame) {
  std::vector<std::byte> bytes(FrameBytes(frame), std::byte{0xaa});
  Encode(frame, bytes);
  return bytes;
}

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

const Frame kRequest = {.kind = FrameKind::kRequest,
                        .credits = 0x0102,
                        .call = 0x03040506,
                        .method = 0x0708090a0b0c0d0e,
                        .timeout_us = 0x11121314,
                        .head = 1,
                        .body = 2};

TEST(RpcFrame, GoldenBytes) {
  const auto bytes = Encoded(kRequest);
  const auto header = Bytes({1, 0, 1, 2, 3,  4,  5,  6,  7, 8, 9, 10, 11, 12, 13, 14,
                             0, 0, 0, 0, 17, 18, 19, 20, 0, 0, 0, 1,  0,  0,  0,  2});
  ASSERT_EQ(bytes.size(), 40u);
  EXPECT_TRUE(std::equal(header.begin(), header.end(), bytes.begin()));
  // Nothing of whoever had the memory before is in the padding.
  EXPECT_TRUE(
      std::all_of(bytes.begin() + 35, bytes.end(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(RpcFrame, ComesBack) {
  for (int kind = 1; kind <= kLastFrameKind; ++kind) {
    const Frame sent = {.kind = static_cast<FrameKind>(kind), .credits = 7, .call = 9, .code = 3};
    Frame received;
    EXPECT_EQ(Decode(Encoded(sent), &received), nullptr) << kind;
    EXPECT_EQ(received.kind, sent.kind);
    EXPECT_EQ(received.credits, 7);
    EXPECT_EQ(received.call, 9u);
    EXPECT_EQ(received.code, 3u);
  }
  Frame sent = kRequest;
  sent.by_address = true;
  sent.lent = {.address = 77, .length = 3, .key = 5};
  Frame received;
  EXPECT_EQ(Decode(Encoded(sent), &received), nullptr);
  EXPECT_TRUE(received.by_address);
  EXPECT_EQ(received.lent.address, 77u);
  EXPECT_EQ(received.lent.key, 5u);
}

TEST(RpcFrame, EveryTruncationIsRefused) {
  Frame by_address = kRequest;
  by_address.by_address = true;
  by_address.lent = {.address = 77, .length = 3, .key = 5};
  for (const Frame& frame : {kRequest, by_address}) {
    const auto bytes = Encoded(frame);
    for (size_t length = 0; length < bytes.size(); ++length) {
      Frame received;
      EXPECT_NE(Decode(std::span(bytes).first(length), &received), nullptr) << length;
    }
  }
}

TEST(RpcFrame, WhatCannotBeIsRefused) {
  const auto wrong = [](size_t at, int value) {
    auto bytes = Encoded(kRequest);
    bytes[at] = static_cast<std::byte>(value);
    Frame received;
    return Decode(bytes, &received);
  };
  EXPECT_NE(wrong(0, 0), nullptr);
  EXPECT_NE(wrong(0, kLastFrameKind + 1), nullptr);
  EXPECT_NE(wrong(0, static_cast<int>(FrameKind::kCancel)), nullptr);  // carries nothing
  for (int flag = 2; flag < 256; flag *= 2) EXPECT_NE(wrong(1, flag), nullptr) << flag;
  EXPECT_NE(wrong(24, 0xff), nullptr);  // lengths whose sum is over 32 bits
  EXPECT_NE(wrong(28, 0xff), nullptr);
  Frame by_address = kRequest;
  by_address.by_address = true;
  by_address.lent = {.address = 77, .length = 4, .key = 5};  // and 3 are carried
  Frame received;
  EXPECT_NE(Decode(Encoded(by_address), &received), nullptr);
}

TEST(RpcHello, ComesBackOrSaysWhy) {
  const std::string good =
      EncodeHello({.receives = 64, .receive_bytes = 8192, .max_message = 5000});
  ASSERT_EQ(good.size(), kHelloBytes);
  const auto hello = DecodeHello(good + "padding");
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(hello->receives, 64);
  EXPECT_EQ(hello->receive_bytes, 8192u);
  EXPECT_EQ(hello->max_message, 5000u);
  EXPECT_FALSE(DecodeHello(good.substr(0, 15)).ok());
  EXPECT_FALSE(DecodeHello("XRPC" + good.substr(4)).ok());
  std::string other = good;
  other[5] = 2;
  EXPECT_THAT(DecodeHello(other).status().message(), ::testing::HasSubstr("version 2"));
  EXPECT_FALSE(
      DecodeHello(EncodeHello({.receives = 1, .receive_bytes = 8192, .max_message = 5000})).ok());
  EXPECT_FALSE(
      DecodeHello(EncodeHello({.receives = 2, .receive_bytes = 55, .max_message = 5000})).ok());
  EXPECT_FALSE(
      DecodeHello(EncodeHello({.receives = 2, .receive_bytes = 56, .max_message = 4095})).ok());
}

TEST(RpcEnvelope, StatusAndMetadata) {
  absl::Status sent = absl::NotFoundError("no such volume");
  sent.SetPayload("example.org/x", absl::Cord("y"));
  const std::string bytes = EncodeEnd(sent, {{"k", "v"}});
  absl::Status received;
  Metadata metadata;
  ASSERT_EQ(DecodeEnd(std::as_bytes(std::span(bytes)), 5, &received, &metadata), nullptr);
  EXPECT_EQ(received, sent);
  EXPECT_EQ(metadata.at("k"), "v");
  EXPECT_NE(DecodeEnd(std::as_bytes(std::span(bytes)), 17, &received, &metadata), nullptr);
  EXPECT_NE(DecodeEnd(Bytes({0xff}), 5, &received, &metadata), nullptr);
  EXPECT_EQ(EncodeEnd(absl::OkStatus(), {}), "");
  EXPECT_EQ(EncodeHead({}), "");
}

// Frames that follow each other are one message, up to its limit and the ring's end.
TEST(RpcSendRing, Gathers) {
  std::vector<std::byte> memory(256);
  SendRing ring(memory, 100);
  EXPECT_TRUE(ring.unsent().empty());
  EXPECT_EQ(ring.Reserve(40).data(), memory.data());
  EXPECT_EQ(ring.Reserve(40).data(), memory.data() + 40);
  EXPECT_EQ(ring.unsent().front().length, 80u);
  EXPECT_EQ(ring.Reserve(40).data(), memory.data() + 80);  // the next message
  const auto first = ring.Take();
  EXPECT_EQ(first.length, 80u);
  EXPECT_EQ(ring.unsent().front().length, 40u);
  EXPECT_EQ(ring.Reserve(100).data(), memory.data() + 120);
  EXPECT_TRUE(ring.Reserve(60).empty());  // 36 to the end, and the front is not free
  ring.Release(first);
  EXPECT_EQ(ring.Reserve(60).data(), memory.data());
  EXPECT_TRUE(ring.Reserve(40).empty());
  EXPECT_EQ(ring.BytesOf(ring.Take()).data(), memory.data() + 80);
}

}  // namespace
}  // namespace verbena::rpc
