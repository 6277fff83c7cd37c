// SPDX-License-Identifier: Apache-2.0
#include "connect/messages.h"

#include <string>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

namespace verbena::connect {
namespace {

std::string Hex(const std::string& bytes) { return absl::BytesToHexString(bytes); }

const Ask kAsk{Purpose::kConnect, LinkBit(Link::kRoce), 1, {*ParseIp("10.1.0.2")}};

// The bytes of docs/wire.md.
TEST(Messages, AskGolden) {
  EXPECT_EQ(Hex(Encode(kAsk)),
            "5672733102020101"
            "00000000000000000000ffff0a010002");
}

TEST(Messages, AnswerGolden) {
  Answer answer{.link = Link::kRoce, .port = 41233, .address = *ParseIp("10.1.0.1")};
  for (uint8_t i = 0; i < kTokenBytes; ++i) answer.token[i] = i;
  answer.more = 2;
  EXPECT_EQ(Hex(Encode(answer)),
            "567273310002a111"
            "00000000000000000000ffff0a010001"
            "000102030405060708090a0b0c0d0e0f02");
  EXPECT_EQ(DecodeAnswer(Encode(answer))->more, 2);
  EXPECT_EQ(Hex(Encode(Answer{.reason = Reason::kNoDevice, .text = "none"})),
            "56727331020000046e6f6e65");
  const Answer next{.reason = Reason::kFailed, .text = "busy", .more = 3};
  EXPECT_EQ(Hex(Encode(next)), "567273310503000462757379");
  EXPECT_EQ(DecodeAnswer(Encode(next))->more, 3);
}

TEST(Messages, AskRoundTripAndTail) {
  Ask many = kAsk;
  while (many.addresses.size() < 5) many.addresses.push_back(*ParseIp("fe80::1"));
  const std::string bytes = Encode(many);
  EXPECT_EQ(bytes.size(), 56u);
  for (const std::string& tail : {std::string(), std::string(8, '\0')}) {
    const auto back = DecodeAsk(bytes + tail);
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(back->purpose, Purpose::kConnect);
    EXPECT_EQ(back->links, many.links);
    EXPECT_EQ(back->nth, 1);
    ASSERT_EQ(back->addresses.size(), kMaxAddresses);
    EXPECT_EQ(ToText(back->addresses[2]), "fe80::1");
  }
}

TEST(Messages, EveryTruncationIsRefused) {
  const std::string ask = Encode(kAsk);
  for (size_t n = 0; n < ask.size(); ++n) EXPECT_FALSE(DecodeAsk(ask.substr(0, n))) << n;
  Answer way{.link = Link::kIwarp, .port = 1};
  for (const Answer& answer : {way, Answer{.reason = Reason::kBusy, .text = "busy"}}) {
    const std::string bytes = Encode(answer);
    EXPECT_TRUE(DecodeAnswer(bytes + std::string(3, '\0')));
    for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(DecodeAnswer(bytes.substr(0, n))) << n;
  }
}

TEST(Messages, NonsenseIsRefused) {
  std::string ask = Encode(kAsk);
  ask[4] = 3;  // no such purpose
  EXPECT_FALSE(DecodeAsk(ask));
  ask[4] = 1, ask[6] = 4;  // more addresses than fit
  EXPECT_FALSE(DecodeAsk(ask + std::string(64, '\0')));
  EXPECT_FALSE(DecodeAnswer(Encode(Answer{.link = Link::kRoce, .port = 0})));
  EXPECT_FALSE(DecodeAnswer(Encode(Answer{.link = Link::kNone, .port = 1})));
  EXPECT_FALSE(DecodeAnswer("this listener requires RDMA"));
}

// What the peer says ends up in logs and on terminals.
TEST(Messages, TextIsMadePrintableAndCut) {
  const Answer bell{.reason = Reason::kFailed, .text = "\x1b[2J\n"};
  EXPECT_EQ(DecodeAnswer(Encode(bell))->text, "?[2J?");
  const Answer longer{.reason = Reason::kFailed, .text = std::string(500, 'x')};
  EXPECT_EQ(DecodeAnswer(Encode(longer))->text, std::string(kMaxRefusalText - 3, 'x') + "...");
  EXPECT_LE(Encode(longer).size(), 148u);
}

TEST(Messages, Tokens) {
  const Token token = *NewToken();
  const std::string text(token.begin(), token.end());
  EXPECT_TRUE(BringsToken(text, token));
  EXPECT_TRUE(BringsToken(text + "tail", token));
  EXPECT_FALSE(BringsToken(text.substr(1), token));
  for (size_t i = 0; i < text.size(); ++i) {
    std::string wrong = text;
    wrong[i] ^= 0x40;
    EXPECT_FALSE(BringsToken(wrong, token)) << i;
  }
}

TEST(Address, TextAndBytes) {
  EXPECT_EQ(ToText(*ParseIp("10.0.0.1")), "10.0.0.1");
  EXPECT_EQ(ToText(*ParseIp("fe80::1%eth0")), "fe80::1");
  EXPECT_FALSE(ParseIp("host").has_value());
  EXPECT_EQ(WithPort(*ParseIp("10.0.0.1"), 7), "10.0.0.1:7");
  EXPECT_EQ(WithPort(*ParseIp("::1"), 7), "[::1]:7");
  EXPECT_EQ(HostOf("[::1]:7471"), "::1");
  EXPECT_EQ(HostOf("10.0.0.1:7471"), "10.0.0.1");
  EXPECT_EQ(PortOf("[::1]:7471"), 7471);
  EXPECT_EQ(PortOf("[::1]:74710"), 0);
}

TEST(Address, Nearness) {
  const auto bits = [](const char* a, const char* b) { return Nearness(*ParseIp(a), *ParseIp(b)); };
  EXPECT_EQ(bits("10.1.0.1", "10.1.0.2"), 30);
  EXPECT_EQ(bits("10.1.0.1", "10.1.0.1"), 32);
  EXPECT_EQ(bits("10.1.0.1", "192.168.0.1"), 0);
  EXPECT_EQ(bits("fe80::1", "fe80::1"), 128);
  EXPECT_EQ(bits("fe80::1", "10.1.0.1"), -1);
}

}  // namespace
}  // namespace verbena::connect
