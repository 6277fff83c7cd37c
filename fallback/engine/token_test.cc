// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/token.h"

#include <string>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

Nonce Counting(uint8_t from) {
  Nonce nonce;
  for (uint8_t& byte : nonce) byte = from++;
  return nonce;
}

// docs/wire.md, Out of band.
TEST(Token, GoldenBytes) {
  const Nonce called = Counting(0), caller = Counting(16);
  const Token call = CallOf(called, caller);
  EXPECT_EQ(absl::BytesToHexString(EncodeCall({PlaceOf(called), call})),
            "053e6438683b8cbd"
            "525b6af3f35eec32550fdd248ef95bb8");
  EXPECT_EQ(absl::BytesToHexString(Text(AnswerTo(called, call))),
            "2de25353a7bb7b844499a8f4778d7d6c");
}

TEST(Token, CallsComeBackAndNothingElseDoes) {
  const Call call{PlaceOf(Counting(1)), CallOf(Counting(1), Counting(2))};
  const std::string text = EncodeCall(call);
  ASSERT_EQ(text.size(), 24u);
  const auto back = DecodeCall(text);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->place, call.place);
  EXPECT_EQ(back->call, call.call);
  for (size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(DecodeCall(text.substr(0, n)).has_value());
  EXPECT_FALSE(DecodeCall(text + "x").has_value());
}

TEST(Token, NeitherEndCanStandInForTheOther) {
  const Nonce a = Counting(1), b = Counting(101);
  EXPECT_NE(CallOf(a, b), CallOf(b, a));
  EXPECT_NE(AnswerTo(a, CallOf(a, b)), AnswerTo(b, CallOf(a, b)));
  EXPECT_NE(AnswerTo(a, CallOf(a, b)), CallOf(a, b));
}

}  // namespace
}  // namespace verbena::engine
