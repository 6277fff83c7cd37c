// SPDX-License-Identifier: Apache-2.0
// What the driver is given for each opcode, field by field (ibv_post_send(3)).
#include "verbs/forms.h"

#include <array>
#include <span>
#include <utility>

#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

const Sge kTwo[2] = {{.address = 0x1000, .length = 8, .key = 5},
                     {.address = 0x2000, .length = 16, .key = 6}};

ibv_send_wr Built(const SendWr& wr, const std::array<Form, kForms>& forms, Ledger::Place* place) {
  ibv_send_wr work;
  Fill(wr, forms[WhichForm(wr)], 99, place, &work);
  FillMore(wr, &work);
  return work;
}

SendWr Request(Opcode opcode) {
  return {.opcode = opcode,
          .local = std::span<const Sge>(kTwo),
          .remote = {.address = 0x1234567890, .key = 77},
          .id = 7,
          .immediate = 0x01020304,
          .invalidate = 88,
          .atomic = {.compare_add = 3, .swap = 4}};
}

TEST(Forms, EachOpcodeSaysWhatItHas) {
  for (int i = 0; i < kOpcodeCount; ++i) {
    const auto opcode = static_cast<Opcode>(i);
    SCOPED_TRACE(i);
    const SendWr wr = Request(opcode);
    Ledger::Place place;
    const ibv_send_wr work = Built(wr, kAsAsked, &place);
    EXPECT_EQ(work.wr_id, 99u);
    EXPECT_EQ(work.next, nullptr);
    EXPECT_EQ(work.num_sge, 2);
    EXPECT_EQ(work.sg_list, AsTheDrivers(kTwo));
    EXPECT_EQ(work.sg_list[1].lkey, 6u);
    EXPECT_EQ(place.id, 7u);
    EXPECT_EQ(place.key_or_next, 77u);
    EXPECT_EQ(place.known().completes, CompletionOf(opcode));
    EXPECT_TRUE(place.known().quiet);
    switch (work.opcode) {
      case IBV_WR_SEND_WITH_IMM:
      case IBV_WR_RDMA_WRITE_WITH_IMM:
        EXPECT_EQ(work.imm_data, htonl(0x01020304));
        break;
      case IBV_WR_SEND_WITH_INV:
      case IBV_WR_LOCAL_INV:
        EXPECT_EQ(work.invalidate_rkey, 88u);
        break;
      case IBV_WR_ATOMIC_CMP_AND_SWP:
      case IBV_WR_ATOMIC_FETCH_AND_ADD:
        EXPECT_EQ(work.wr.atomic.remote_addr, 0x1234567890u);
        EXPECT_EQ(work.wr.atomic.rkey, 77u);
        EXPECT_EQ(work.wr.atomic.compare_add, 3u);
        EXPECT_EQ(work.wr.atomic.swap, 4u);
        break;
      default:
        break;
    }
    if (opcode >= Opcode::kWrite && opcode <= Opcode::kRead) {
      EXPECT_EQ(work.wr.rdma.remote_addr, 0x1234567890u);
      EXPECT_EQ(work.wr.rdma.rkey, 77u);
    }
  }
}

TEST(Forms, FlagsAreTheDrivers) {
  // Expect: each by itself and all together; where the queue pair signals all, nothing is quiet.
  SendWr wr = Request(Opcode::kWrite);
  Ledger::Place place;
  const std::pair<SendFlags, unsigned> kFlags[] = {{SendFlags::kNone, 0},
                                                   {SendFlags::kSignaled, IBV_SEND_SIGNALED},
                                                   {SendFlags::kSolicited, IBV_SEND_SOLICITED},
                                                   {SendFlags::kFence, IBV_SEND_FENCE},
                                                   {SendFlags::kInline, IBV_SEND_INLINE}};
  for (const auto& [ours, theirs] : kFlags) {
    wr.flags = ours;
    EXPECT_EQ(Built(wr, kAsAsked, &place).send_flags, theirs);
    EXPECT_EQ(place.known().quiet, ours != SendFlags::kSignaled);
    EXPECT_EQ(Built(wr, kAllSignaled, &place).send_flags, theirs | IBV_SEND_SIGNALED);
    EXPECT_FALSE(place.known().quiet);
  }
}

TEST(Forms, AnEntryByItselfIsTheRequestsOwn) {
  SendWr wr = Request(Opcode::kSend);
  wr.local = kTwo[0];
  Ledger::Place place;
  ibv_send_wr work;
  Fill(wr, kAsAsked[WhichForm(wr)], 99, &place, &work);
  EXPECT_EQ(work.num_sge, 1);
  EXPECT_EQ(work.sg_list->addr, 0x1000u);
  EXPECT_EQ(LengthOf(wr.local), 8u);
  wr.local = {};
  FillMore(wr, &work);
  EXPECT_EQ(work.num_sge, 0);
  EXPECT_EQ(LengthOf(wr.local), 0u);
}

TEST(Forms, TheShortWaysGiveTheSame) {
  // Expect: field by field what the long way gives, for each opcode that takes a short one.
  const auto expect_same = [](const ibv_send_wr& got, const SendWr& wr,
                              const Ledger::Place& place) {
    Ledger::Place other;
    const ibv_send_wr wanted = Built(wr, kAsAsked, &other);
    EXPECT_EQ(got.wr_id, wanted.wr_id);
    EXPECT_EQ(got.next, nullptr);
    EXPECT_EQ(got.sg_list, wanted.sg_list);
    EXPECT_EQ(got.num_sge, wanted.num_sge);
    EXPECT_EQ(got.opcode, wanted.opcode);
    EXPECT_EQ(got.send_flags, wanted.send_flags);
    EXPECT_EQ(place.id, other.id);
    EXPECT_EQ(place.key_or_next, other.key_or_next);
    EXPECT_EQ(place.facts, other.facts);
  };
  for (const Opcode opcode : {Opcode::kSend, Opcode::kWrite, Opcode::kRead}) {
    SendWr wr = Request(opcode);
    wr.flags = SendFlags::kSignaled | SendFlags::kFence;
    Ledger::Place place;
    ibv_send_wr work;
    FillTwo(wr, kTwo, kAsAsked[WhichForm(wr)], 99, &place, &work);
    expect_same(work, wr, place);
    EXPECT_EQ(work.wr.rdma.remote_addr, 0x1234567890u);
    EXPECT_EQ(work.wr.rdma.rkey, 77u);
  }
  for (const Opcode opcode : {Opcode::kCompareSwap, Opcode::kFetchAdd}) {
    SendWr wr = Request(opcode);
    wr.local = kTwo[0];
    Ledger::Place place;
    ibv_send_wr work;
    FillAtomic(wr, kAsAsked[WhichForm(wr)], 99, &place, &work);
    expect_same(work, wr, place);
    EXPECT_EQ(work.wr.atomic.remote_addr, 0x1234567890u);
    EXPECT_EQ(work.wr.atomic.rkey, 77u);
    EXPECT_EQ(work.wr.atomic.compare_add, 3u);
    EXPECT_EQ(work.wr.atomic.swap, 4u);
  }
}

TEST(Forms, NothingIsOpenBeforeItIsOpened) {
  // Expect: no length passes, none at all neither.
  for (const auto* forms : {&kAsAsked, &kAllSignaled}) {
    for (size_t i = 0; i < kPlainForms; ++i) {
      EXPECT_EQ((*forms)[i].fewer, 0u);
      EXPECT_EQ((*forms)[i].other, IsAtomic(OpcodeOf(i)) ? Form::kNoLength : 0u);
    }
  }
}

}  // namespace
}  // namespace verbena::verbs
