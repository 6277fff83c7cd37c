// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/note.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "fallback/engine/handshake.h"
#include "fallback/wire/extension.h"
#include "fallback/wire/mpa.h"
#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::Golden;
using wire::ToHex;

std::span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

Offer Noted(std::vector<Candidate> note) {
  Offer offer{"hi", 16, 16, {}};
  offer.note = std::move(note);
  return offer;
}

// docs/wire.md, "Selection".
TEST(Note, RequestIsTheseBytes) {
  EXPECT_EQ(ToHex(EncodeRequest(Noted({{"rxe0", false, "off"}}))),
            Golden("4d504120494420526571204672616d65 10 02 0020 8010 c010 6869"
                   "727865303a206f6666 09 56726231 01 01 10 3c 0000005f 00000040"));
}

TEST(Note, ArrivesBesideThePrivateData) {
  const auto peer = DecodeRequest(
      EncodeRequest(Noted({{"rxe0", false, "no answer: within 1s"}, {"b", false, ""}})));
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->private_data, "hi");
  ASSERT_EQ(peer->note.size(), 2u);
  EXPECT_EQ(peer->note[0].device, "rxe0");
  EXPECT_EQ(peer->note[0].reason, "no answer: within 1s");
  EXPECT_EQ(peer->note[1].device, "b");
  // What the request is does not matter to what the ends agree on.
  EXPECT_TRUE(Agree(*peer, Noted({})).ok());
}

TEST(Note, FitsWhateverItSays) {
  Offer offer = Noted(std::vector<Candidate>(20, {"rxe0", false, std::string(72, 'x')}));
  offer.private_data = std::string(56, 'p');
  const auto frame = EncodeRequest(offer);
  EXPECT_LE(frame.size(), 20u + 256u);
  const auto peer = DecodeRequest(frame);
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->private_data, offer.private_data);
  EXPECT_EQ(peer->note.size(), 4u);
}

// Expect: whole while there is room; else cut behind a word, each about as much.
TEST(Note, LongReasonsAreShortened) {
  const std::string reason = "the kernel has an RDMA device and no file under /dev to open it";
  const auto told = [](const std::vector<Candidate>& note) {
    return DecodeRequest(EncodeRequest(Noted(note)))->note;
  };
  EXPECT_EQ(told({{"rxe0", false, reason}, {"b", false, reason}})[1].reason, reason);
  const auto three = told({{"a", false, reason}, {"b", false, reason}, {"c", false, reason}});
  ASSERT_EQ(three.size(), 3u);
  for (const Candidate& each : three) {
    EXPECT_TRUE(each.reason.starts_with("the kernel has an RDMA device and no file"))
        << each.reason;
    EXPECT_TRUE(each.reason.ends_with("...")) << each.reason;
  }
  EXPECT_EQ(three[0].reason, "the kernel has an RDMA device and no file...");
}

TEST(Note, IsMadePrintable) {
  const std::string text = EncodeNote({{"a\x1b", false, "b\xff\x07"}});
  auto data = Bytes(text);
  const auto note = TakeNote(&data);
  ASSERT_EQ(note.size(), 1u);
  EXPECT_EQ(note[0].device, "a?");
  EXPECT_EQ(note[0].reason, "b??");
}

TEST(Note, WhatIsNoneStays) {
  for (const std::string& text : {std::string(), std::string("ab\x09"), std::string(300, '\xff')}) {
    auto data = Bytes(text);
    EXPECT_TRUE(TakeNote(&data).empty());
    EXPECT_EQ(data.size(), text.size());
  }
}

TEST(Rendezvous, CannotBeAccepted) {
  Offer asking{"ask", 1, 1, {}};
  asking.rendezvous = true;
  const auto peer = DecodeRequest(EncodeRequest(asking));
  ASSERT_TRUE(peer.ok());
  EXPECT_TRUE(peer->rendezvous);
  EXPECT_EQ(peer->private_data, "ask");
  EXPECT_FALSE(Agree(*peer, {"", 1, 1, {}}).ok());
  const auto rejected = DecodeReply(EncodeReject(*peer, "way"), asking);
  ASSERT_TRUE(rejected.ok());
  EXPECT_TRUE(rejected->rejected);
  EXPECT_EQ(rejected->private_data, "way");
  // Nobody accepts it. An answer that does is no connection of the application's.
  const auto accepted = DecodeReply(EncodeReply(*peer, {"", 1, 1, {}}, Session()), asking);
  EXPECT_EQ(accepted.status().code(), absl::StatusCode::kFailedPrecondition);
}

// Under the key of a Request an iWARP stack would hand it to its application; under its own key
// without the feature it says nothing.
TEST(Rendezvous, NeedsItsKeyAndItsFeature) {
  Offer asking{"ask", 1, 1, {}};
  asking.rendezvous = true;
  for (const bool rendezvous : {false, true}) {
    asking.rendezvous = rendezvous;
    std::vector<std::byte> frame = EncodeRequest(asking);
    Offer other = asking;
    other.rendezvous = !rendezvous;
    const std::vector<std::byte> key = EncodeRequest(other);
    std::copy_n(key.begin(), wire::kMpaAskKey.size(), frame.begin());
    EXPECT_EQ(DecodeRequest(frame).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace verbena::engine
