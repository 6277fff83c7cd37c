// SPDX-License-Identifier: Apache-2.0
// The debug modes: what a device may do, and programs must not rely on the contrary.
#include "fallback/engine/hardships.h"

#include <atomic>
#include <thread>

#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

TEST(Hardships, AreChosenByName) {
  const auto two = ParseHardships("poison,late_answers");
  ASSERT_TRUE(two.ok());
  EXPECT_TRUE(two->poison && two->late_answers && !two->device_atomics);
  const auto none = ParseHardships("");
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->poison || none->late_answers || none->device_atomics);
  const auto all = ParseHardships("all");
  ASSERT_TRUE(all.ok());
  EXPECT_TRUE(all->poison && all->late_answers && all->device_atomics);
  EXPECT_EQ(ParseHardships("poison,luck").status().code(), absl::StatusCode::kInvalidArgument);
}

// Both ends of a connection with these modes at the second one.
struct Harsh {
  explicit Harsh(const Hardships& h) : w(Chunks(0), false, {}, {.number = 2, .hardships = h}) {}
  Wired w;
  Memory mine{&w.a, 64}, theirs{&w.b, 64};
};

// A read of `theirs`, and a write to the same place behind it: what the read brings.
uint8_t ReadThenWrite(const Hardships& hardships, SendFlags flags) {
  Harsh h(hardships);
  h.theirs.data()[0] = std::byte{1};
  h.mine.data()[8] = std::byte{2};
  h.w.a.Post(
      {.opcode = Opcode::kRead, .local = h.mine.sge(0, 1), .remote = h.theirs.at(), .id = 1});
  h.w.a.Post({.opcode = Opcode::kWrite,
              .local = h.mine.sge(8, 1),
              .remote = h.theirs.at(),
              .id = 2,
              .flags = flags});
  // The target is driven before it finds the stream empty.
  h.w.cable.Send(0);
  h.w.cable.Deliver(0);
  h.w.cable.Send(1, false);
  h.w.cable.Run();
  EXPECT_EQ(h.w.a.Sends(), "1 SUCCESS, 2 SUCCESS");
  return static_cast<uint8_t>(h.mine.data()[0]);
}

TEST(LateAnswers, AreOvertakenByWhatIsNotFenced) {
  // Expect: without a fence the read brings what was written behind it.
  const Hardships late{.late_answers = true};
  EXPECT_EQ(ReadThenWrite(late, SendFlags::kNone), 2);
  EXPECT_EQ(ReadThenWrite(late, SendFlags::kFence), 1);
}

TEST(LateAnswers, ComeOnlyWhenNothingMoreIsThere) {
  Harsh h({.late_answers = true});
  h.w.a.Post(
      {.opcode = Opcode::kRead, .local = h.mine.sge(0, 8), .remote = h.theirs.at(), .id = 1});
  h.w.cable.Send(0);
  h.w.cable.Deliver(0);
  EXPECT_TRUE(h.w.b.Drain(false).empty());
  EXPECT_FALSE(h.w.b.Drain(true).empty());
}

TEST(Poison, IsInTheMemoryOfAReceiveUntilTheMessageIs) {
  // Half a message has come.
  // Expect: poison where the rest will be, and none behind it where nothing will.
  Harsh h({.poison = true});
  Memory from(&h.w.a, 32);
  from.Fill(5);
  h.w.b.PostReceive({.local = h.theirs.sge(0, 48), .id = 1});
  h.w.a.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 2});
  const std::vector<std::byte> sent = h.w.a.Drain();
  h.w.b.Feed({sent.data(), sent.size() - 16});
  EXPECT_EQ(h.theirs.data()[31], std::byte{kPoison});
  EXPECT_EQ(h.theirs.data()[32], std::byte{0});
  h.w.b.Feed({sent.data() + sent.size() - 16, 16});
  EXPECT_EQ(h.w.b.Receives(), "1 SUCCESS");
  EXPECT_TRUE(h.theirs.Has(5, 0, 32));
}

TEST(Poison, FollowsTheSegmentsOfAMessage) {
  // A message of two segments into three pieces of memory; the header of the second has come.
  // Expect: the first segment's bytes, poison for the second's, and nothing behind.
  Side side({.hardships = {.poison = true}});
  side.qp.Connected(OwnSession(false));
  Memory into(&side, 64);
  const Sge pieces[] = {into.sge(0, 10), into.sge(16, 10), into.sge(32, 20)};
  side.PostReceive({.local = std::span<const Sge>(pieces), .id = 1});
  wire::UntaggedHeader first = SendHeader(1);
  first.ddp &= static_cast<uint8_t>(~wire::kLast);
  const Bytes second = MakeFpdu(SendHeader(1, 16), Bytes(8, std::byte{2}));
  side.Feed(MakeFpdu(first, Bytes(16, std::byte{1})));
  side.Feed(std::span(second).first(sizeof(wire::UntaggedHeader)));
  const std::byte poison{kPoison};
  EXPECT_EQ(into.data()[21], std::byte{1});
  for (const size_t i : {22, 25, 32, 35}) EXPECT_EQ(into.data()[i], poison) << i;
  for (const size_t i : {10, 26, 36, 51}) EXPECT_EQ(into.data()[i], std::byte{0}) << i;
}

TEST(Poison, IsInTheSinkOfAReadWhenItsAnswerBegins) {
  // Expect: nothing of it before, for a refused read brings nothing; then all of the sink.
  Harsh h({.poison = true});
  h.w.b.Post(
      {.opcode = Opcode::kRead, .local = h.theirs.sge(0, 48), .remote = h.mine.at(), .id = 1});
  h.w.a.Feed(h.w.b.Drain());
  EXPECT_TRUE(h.theirs.IsZero());
  const std::vector<std::byte> answer = h.w.a.Drain();
  h.w.b.Feed({answer.data(), answer.size() - 16});
  EXPECT_EQ(h.theirs.data()[47], std::byte{kPoison});
  EXPECT_EQ(h.theirs.data()[48], std::byte{0});
  h.w.b.Feed({answer.data() + answer.size() - 16, 16});
  EXPECT_EQ(h.w.b.Sends(), "1 SUCCESS");
  EXPECT_TRUE(h.theirs.IsZero());
}

TEST(DeviceAtomics, LoseWhatTheProcessorAdds) {
  // The target's processor adds while the peer does, each a good many times.
  // Expect: sooner or later an addition of the processor's is lost, and never one of the peer's
  // own; the capability says so.
  Harsh h({.device_atomics = true});
  EXPECT_FALSE(h.w.b.qp.capabilities().global_atomics);
  EXPECT_TRUE(h.w.a.qp.capabilities().global_atomics);
  std::atomic_ref<uint64_t> word(h.theirs.word(0));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> added{0};  // at least
  std::thread processor([&] {
    for (; !stop; ++added) word.fetch_add(1);
  });
  constexpr uint64_t kPeers = 1ull << 40;  // its additions are in the upper bits
  uint64_t operations = 0;
  bool lost = false;
  for (; operations < 1'000'000 && !lost; ++operations) {
    h.w.a.Post({.opcode = Opcode::kFetchAdd,
                .local = h.mine.sge(0, 8),
                .remote = h.theirs.at(),
                .id = operations,
                .atomic = {.compare_add = kPeers}});
    h.w.cable.Run();
    h.w.a.NextSend();
    EXPECT_EQ(h.mine.word(0) / kPeers, operations);
    const uint64_t at_least = added;
    lost = word.load() % kPeers < at_least;
  }
  stop = true;
  processor.join();
  EXPECT_TRUE(lost);
}

}  // namespace
}  // namespace verbena::engine
