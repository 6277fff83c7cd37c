// SPDX-License-Identifier: Apache-2.0
// The arithmetic of locked memory, at the edges of pages and limits.
#include "verbs/memlock.h"

#include <cerrno>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kPage = 4096;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST(LockedPages, EveryPageThatIsTouched) {
  const struct {
    uint64_t address, bytes, pages;
  } rows[] = {{0x10000, 0, 0},
              {0x10000, 1, 1},
              {0x10000, kPage, 1},
              {0x10000, kPage + 1, 2},
              {0x10fff, 1, 1},
              {0x10fff, 2, 2},
              {0x10010, 16 * kPage, 17},
              {0x10000, 65536, 16},
              {0x10001, 65535, 16},
              {~uint64_t{0}, 1, 1},
              {~uint64_t{4095}, kPage, 1}};
  for (const auto& row : rows) {
    EXPECT_EQ(LockedPages(row.address, row.bytes, kPage), row.pages)
        << row.address << " " << row.bytes;
  }
}

TEST(CheckPinnable, WholePagesAreCompared) {
  // A limit of 64 KiB holds 64 KiB that begin at a page, and not those that begin in its middle.
  LockedMemory memory{.page_bytes = kPage, .limit = 65536};
  EXPECT_TRUE(CheckPinnable("register", LockedPages(0x10000, 65536, kPage), memory).ok());
  const absl::Status status =
      CheckPinnable("register 65536 bytes", LockedPages(0x10010, 65536, kPage), memory);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(status),
              AllOf(HasSubstr("register 65536 bytes: "), HasSubstr("here 69632 bytes"),
                    HasSubstr("0 bytes are already"), HasSubstr("the limit is 65536"),
                    HasSubstr("ulimit -l"), HasSubstr("LimitMEMLOCK"), HasSubstr("--ulimit")));
}

TEST(CheckPinnable, WhatIsPinnedAlreadyCounts) {
  LockedMemory memory{.page_bytes = kPage, .pinned = 61440, .limit = 65536};
  EXPECT_TRUE(CheckPinnable("register", 1, memory).ok());
  EXPECT_THAT(Text(CheckPinnable("register", 2, memory)), HasSubstr("61440 bytes are already"));
  memory.pinned = 65536 + kPage;  // the limit was lowered since
  EXPECT_FALSE(CheckPinnable("register", 1, memory).ok());
}

TEST(CheckPinnable, PartOfAPageInTheLimitIsNone) {
  EXPECT_FALSE(CheckPinnable("register", 1, {.page_bytes = kPage, .limit = kPage - 1}).ok());
}

TEST(CheckPinnable, TheExemptAndTheUnlimited) {
  EXPECT_TRUE(
      CheckPinnable("register", 99, {.page_bytes = kPage, .limit = 0, .exempt = true}).ok());
  EXPECT_TRUE(
      CheckPinnable("register", 1 << 30, {.page_bytes = kPage, .limit = ~uint64_t{0}}).ok());
}

TEST(PinRefused, OnlyWhatTheLimitExplains) {
  const LockedMemory full{.page_bytes = kPage, .pinned = 65536, .limit = 65536};
  const LockedMemory room{.page_bytes = kPage, .limit = 65536};
  const LockedMemory none{.page_bytes = kPage, .limit = 0};
  EXPECT_THAT(Text(PinRefused("register", 1, ENOMEM, full)), HasSubstr("the limit is 65536"));
  EXPECT_THAT(Text(PinRefused("register", 1, EPERM, none)), HasSubstr("the limit is 0"));
  // siw exempts nobody.
  EXPECT_FALSE(
      PinRefused("register", 1, ENOMEM, {.page_bytes = kPage, .limit = 0, .exempt = true}).ok());
  // The device, or the machine, has no more of something else.
  EXPECT_TRUE(PinRefused("register", 16, ENOMEM, room).ok());
  EXPECT_TRUE(PinRefused("register", 1, EAGAIN, full).ok());  // a control group's rdma.max
  EXPECT_TRUE(PinRefused("register", 1, EFAULT, full).ok());
}

TEST(ReadLockedMemory, OfThisProcess) {
  const LockedMemory memory = ReadLockedMemory();
  EXPECT_GE(memory.page_bytes, 4096u);
  EXPECT_EQ(LockedPages(&memory, 1), 1u);
}

}  // namespace
}  // namespace verbena::verbs
