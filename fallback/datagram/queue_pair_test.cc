// SPDX-License-Identifier: Apache-2.0
// The queue pair of datagrams without a socket: what it makes of posts and of packets, byte by
// byte.
#include "fallback/datagram/queue_pair.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::datagram {
namespace {

using engine::CompletionRing;
using engine::KeyTable;
using engine::Region;
using testing::ElementsAre;

constexpr uint32_t kDomain = 3;
constexpr uint32_t kNumber = 0xc001f1;

class Subject : public testing::Test, Surroundings, engine::CompletionObserver {
 protected:
  Subject() : ring_(256, this), memory_(16 << 10) {
    region_.key = keys_.NewKey();
    region_.domain = kDomain;
    region_.access = Access::kLocalWrite;
    region_.first = reinterpret_cast<uint64_t>(memory_.data());
    region_.length = memory_.size();
    region_.host = memory_.data();
    keys_.Add(&region_);
    Make({});
  }
  void Make(const QpLimits& limits) {
    Config c;
    c.number = kNumber;
    c.domain = c.receive_domain = kDomain;
    c.limits = limits;
    c.send_ring = c.receive_ring = &ring_;
    c.keys = &keys_;
    c.surroundings = this;
    qp_ = std::make_unique<QueuePair>(c);
  }
  void ToRts(uint32_t qkey = 7) {
    ASSERT_TRUE(qp_->Modify({.state = QpState::kRtr, .qkey = qkey}).ok());
    ASSERT_TRUE(qp_->Modify({.state = QpState::kRts}).ok());
  }
  Sge At(size_t offset, uint32_t length) const {
    return {reinterpret_cast<uint64_t>(memory_.data()) + offset, length, region_.key};
  }
  PostResult Send(const SgeList& local, uint64_t id = 1, uint32_t qkey = 7,
                  Opcode opcode = Opcode::kSend) {
    return qp_->PostSend({{{.opcode = opcode,
                            .local = local,
                            .id = id,
                            .immediate = 0xabcd,
                            .to = {somewhere_, 0xd00280, qkey}}}});
  }
  void Receive(const SgeList& local, uint64_t id = 9) {
    bool wake = false;
    ASSERT_TRUE(qp_->PostReceive({{{.local = local, .id = id}}}, &wake).ok());
    EXPECT_FALSE(wake);
  }
  static std::vector<std::byte> Bytes(const Parcel& parcel) {
    std::vector<std::byte> all;
    for (const iovec& v : parcel.pieces) {
      const auto* const from = static_cast<const std::byte*>(v.iov_base);
      all.insert(all.end(), from, from + v.iov_len);
    }
    return all;
  }
  static std::vector<std::byte> Packet(const wire::Datagram& d, size_t payload) {
    const wire::DatagramHeader header = wire::EncodeDatagram(d);
    std::vector<std::byte> packet(sizeof(header) + payload, std::byte{0x5a});
    std::memcpy(packet.data(), &header, sizeof(header));
    return packet;
  }
  void Arrive(const wire::Datagram& d, size_t payload = 8, bool group = false) {
    qp_->Received(Packet(d, payload), {}, group);
  }
  std::vector<WorkCompletion> Completions() {
    std::vector<WorkCompletion> all(64);
    all.resize(ring_.Pop(all));
    return all;
  }
  static constexpr wire::Datagram kRight = {.source = 0xd00280, .destination = kNumber, .qkey = 7};

  // Surroundings
  void OnEvent(EventType type, const absl::Status&) override { events_.push_back(type); }
  void OnSharedLimit() override {}
  const Route* RouteOf(const AddressHandle* handle) const override {
    return handle == nullptr ? nullptr : &route_;
  }
  // CompletionObserver
  void OnNotify() override {}
  void OnPushed() override {}
  void OnOverflow() override {}

  KeyTable keys_;
  CompletionRing ring_;
  std::vector<std::byte> memory_;
  Region region_;
  Route route_{.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2}};
  // Only looked at by RouteOf, above.
  const AddressHandle* const somewhere_ = reinterpret_cast<const AddressHandle*>(this);
  std::unique_ptr<QueuePair> qp_;
  std::vector<EventType> events_;
};

TEST_F(Subject, NumbersLeadToPorts) {
  EXPECT_EQ(NumberOf(0xc001, 0xf1), kNumber);
  EXPECT_EQ(NumberOf(0xc001, 0x71), kNumber);
  EXPECT_EQ(NumberOf(0xc001, 0), 0xc00180u);
  EXPECT_EQ(PortOf(kNumber), 0xc001);
}

TEST_F(Subject, APostBecomesAPacket) {
  ToRts();
  std::memset(memory_.data(), 0x11, 4);
  std::memset(memory_.data() + 100, 0x22, 2);
  const Sge two[] = {At(0, 4), At(100, 2)};
  ASSERT_TRUE(Send(std::span<const Sge>(two), 1, 7, Opcode::kSendWithImm).ok());
  const std::span<const Parcel> out = qp_->Gather();
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].to.ip, route_.ip);
  EXPECT_EQ(out[0].port, 0xd002);
  const std::vector<std::byte> bytes = Bytes(out[0]);
  ASSERT_EQ(bytes.size(), sizeof(wire::DatagramHeader) + 6);
  const std::optional<wire::Datagram> d = wire::DecodeDatagram(bytes);
  ASSERT_TRUE(d);
  EXPECT_EQ(d->source, kNumber);
  EXPECT_EQ(d->destination, 0xd00280u);
  EXPECT_EQ(d->qkey, 7u);
  EXPECT_EQ(d->immediate, 0xabcdu);
  EXPECT_EQ(bytes[20], std::byte{0x11});
  EXPECT_EQ(bytes[25], std::byte{0x22});
  EXPECT_TRUE(Completions().empty());  // not before it has gone
  qp_->Sent(1);
  const std::vector<WorkCompletion> done = Completions();
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(done[0].ok());
  EXPECT_EQ(done[0].id, 1u);
}

TEST_F(Subject, TheHighestBitOfAQkeyStandsForTheOwn) {
  ToRts(0x55);
  ASSERT_TRUE(Send({}, 1, kOwnQkey | 0x123).ok());
  EXPECT_EQ(wire::DecodeDatagram(Bytes(qp_->Gather()[0]))->qkey, 0x55u);
}

TEST_F(Subject, GroupsHaveTheirOwnPortAndNumber) {
  ToRts();
  route_.group = true;
  ASSERT_TRUE(Send({}).ok());
  const std::span<const Parcel> out = qp_->Gather();
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].port, kGroupPort);
  EXPECT_EQ(wire::DecodeDatagram(Bytes(out[0]))->destination, kGroupNumber);
}

// Some of a batch have gone, as when the socket is full.
TEST_F(Subject, TheRestOfABatchGoesNext) {
  ToRts();
  for (uint64_t id = 0; id < 20; ++id) ASSERT_TRUE(Send({}, id).ok());
  EXPECT_EQ(qp_->Gather().size(), QueuePair::kBatch);
  qp_->Sent(3);
  EXPECT_EQ(Completions().size(), 3u);
  EXPECT_EQ(qp_->Gather().size(), QueuePair::kBatch);
  qp_->Sent(QueuePair::kBatch);
  EXPECT_EQ(qp_->Gather().size(), 1u);
  qp_->Sent(1);
  EXPECT_TRUE(qp_->Gather().empty());
  EXPECT_EQ(Completions().back().id, 19u);
  EXPECT_EQ(qp_->outstanding(), 0u);
}

TEST_F(Subject, AQueueIsFullUntilCompletionsArePolled) {
  Make({.max_send_wr = 2, .max_receive_wr = 2, .max_send_sge = 1, .max_receive_sge = 1});
  ToRts();
  ASSERT_TRUE(Send({}).ok());
  ASSERT_TRUE(Send({}).ok());
  EXPECT_EQ(Send({}).error, PostError::kQueueFull);
  qp_->Gather();
  qp_->Sent(2);
  EXPECT_EQ(Send({}).error, PostError::kQueueFull);
  EXPECT_EQ(Completions().size(), 2u);
  EXPECT_TRUE(Send({}).ok());
}

TEST_F(Subject, WhatIsWrongWithAPostIsRefused) {
  EXPECT_EQ(Send({}).error, PostError::kInvalidState);
  ToRts();
  const Sge large[] = {At(0, 4096), At(0, 1)};
  EXPECT_EQ(Send(std::span<const Sge>(large)).error, PostError::kMessageTooLong);
  EXPECT_EQ(Send({}, 1, 7, Opcode::kWrite).error, PostError::kInvalidOpcode);
  EXPECT_EQ(qp_->PostSend({{{.opcode = Opcode::kSend}}}).error, PostError::kNoDestination);
  const std::vector<Sge> many(5, At(0, 1));
  EXPECT_EQ(Send(std::span<const Sge>(many)).error, PostError::kTooManySges);
}

// Good, bad, good: the first goes, and only then the second fails.
TEST_F(Subject, AWrongKeyFailsInItsTurn) {
  ToRts();
  Sge wrong = At(0, 8);
  wrong.key ^= 1;
  ASSERT_TRUE(Send({}, 1).ok());
  ASSERT_TRUE(Send(wrong, 2).ok());
  ASSERT_TRUE(Send({}, 3).ok());
  EXPECT_EQ(qp_->Gather().size(), 1u);
  EXPECT_EQ(qp_->state(), QpState::kRts);
  qp_->Sent(1);
  EXPECT_TRUE(qp_->Gather().empty());
  EXPECT_EQ(qp_->state(), QpState::kSqe);
  std::vector<WcStatus> statuses;
  for (const WorkCompletion& wc : Completions()) statuses.push_back(wc.status);
  EXPECT_THAT(statuses,
              ElementsAre(WcStatus::kSuccess, WcStatus::kLocalProtectionError, WcStatus::kFlushed));
  Receive({});
  Receive(At(0, 100));
  // In SQE receives go on.
  qp_->Received(Packet(kRight, 8), {}, false);
  EXPECT_EQ(qp_->counters().dropped_no_receive, 1u);  // the first has no room for it
}

TEST_F(Subject, APacketFillsAReceive) {
  ToRts();
  const Sge two[] = {At(0, 30), At(100, 30)};
  Receive(std::span<const Sge>(two));
  wire::Datagram d = kRight;
  d.immediate = 5;
  Arrive(d, 20);
  const std::vector<WorkCompletion> done = Completions();
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(done[0].ok());
  EXPECT_EQ(done[0].length, 60u);
  EXPECT_EQ(done[0].source_qp, 0xd00280u);
  EXPECT_TRUE(done[0].has_grh);
  EXPECT_EQ(done[0].immediate_or_key, 5u);
  EXPECT_EQ(memory_[0], std::byte{0x60});  // an IPv6 header
  EXPECT_EQ(memory_[110], std::byte{0x5a});
  EXPECT_EQ(memory_[129], std::byte{0x5a});
  EXPECT_EQ(memory_[130], std::byte{0});
}

TEST_F(Subject, DropsAndCounts) {
  ToRts();
  Arrive(kRight);
  EXPECT_EQ(qp_->counters().dropped_no_receive, 1u);
  Receive(At(0, 47));
  Arrive(kRight, 8);  // needs 48
  EXPECT_EQ(qp_->counters().dropped_no_receive, 2u);
  wire::Datagram other = kRight;
  other.qkey = 8;
  Arrive(other, 7);
  EXPECT_EQ(qp_->counters().dropped_qkey, 1u);
  other = kRight;
  other.destination ^= 1;
  Arrive(other, 7);
  Arrive(kRight, 7, true);  // to a group, and names a queue pair
  other.destination = kGroupNumber;
  Arrive(other, 7);  // names a group, and was not sent to one
  qp_->Received({}, {}, false);
  EXPECT_EQ(qp_->counters().dropped_other, 4u);
  EXPECT_TRUE(Completions().empty());
  Arrive(kRight, 7);  // the receive is still there
  EXPECT_EQ(Completions().size(), 1u);
}

TEST_F(Subject, NothingIsTakenBeforeRtr) {
  Receive(At(0, 100));
  wire::Datagram d = kRight;
  d.qkey = 0;  // what INIT has
  Arrive(d);
  EXPECT_EQ(qp_->counters().dropped_other, 1u);
  EXPECT_TRUE(Completions().empty());
}

TEST_F(Subject, AReceiveThatMayNotBeFilledFailsAndEndsIt) {
  ToRts();
  Sge wrong = At(0, 100);
  wrong.key ^= 1;
  Receive(wrong, 1);
  Receive(At(0, 100), 2);
  Arrive(kRight);
  const std::vector<WorkCompletion> done = Completions();
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(done[0].status, WcStatus::kLocalProtectionError);
  EXPECT_EQ(done[1].status, WcStatus::kFlushed);
  EXPECT_EQ(qp_->state(), QpState::kErr);
}

TEST_F(Subject, ResetForgets) {
  ToRts();
  Receive(At(0, 100));
  ASSERT_TRUE(Send({}).ok());
  ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
  EXPECT_EQ(qp_->outstanding(), 0u);
  EXPECT_EQ(qp_->Query().qkey, 0u);
  ASSERT_TRUE(qp_->Modify({.state = QpState::kInit}).ok());
  ToRts();
  EXPECT_TRUE(qp_->Gather().empty());
  Arrive(kRight);
  EXPECT_EQ(qp_->counters().dropped_no_receive, 1u);
  EXPECT_TRUE(Completions().empty());
}

}  // namespace
}  // namespace verbena::datagram
