// SPDX-License-Identifier: Apache-2.0
#include "transport/handle.h"

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "gtest/gtest.h"
#include "transport/fake_provider.h"
#include "transport/protection_domain.h"

namespace verbena {
namespace {

static_assert(!std::is_copy_constructible_v<MemoryWindow>);
static_assert(!std::is_copy_assignable_v<MemoryWindow>);
static_assert(std::is_nothrow_move_constructible_v<MemoryWindow>);
static_assert(std::is_nothrow_move_assignable_v<MemoryWindow>);

std::unique_ptr<fake::MemoryWindow> Made(fake::Journal* journal) {
  auto object = std::make_unique<fake::MemoryWindow>();
  object->journal = journal;
  return object;
}

TEST(HandleTest, EmptyOneIsClosed) {
  MemoryWindow none;
  EXPECT_FALSE(none.is_open());
  EXPECT_TRUE(none.Close().ok());
}

TEST(HandleTest, DestructorClosesThenDestroys) {
  fake::Journal journal;
  {
    const MemoryWindow window(Made(&journal));
    EXPECT_TRUE(window.is_open());
  }
  EXPECT_EQ(journal.closed, 1);
  EXPECT_EQ(journal.destroyed, 1);
}

TEST(HandleTest, ClosingTwiceIsFine) {
  fake::Journal journal;
  MemoryWindow window(Made(&journal));
  EXPECT_TRUE(window.Close().ok());
  EXPECT_FALSE(window.is_open());
  EXPECT_TRUE(window.Close().ok());
  EXPECT_EQ(journal.closed, 1);
  EXPECT_EQ(journal.destroyed, 1);
}

// Close is refused while a child is open. Expect: the object serves on, and closes afterwards.
TEST(HandleTest, RefusedCloseChangesNothing) {
  fake::Journal journal;
  auto object = Made(&journal);
  fake::MemoryWindow* raw = object.get();
  raw->refusal = absl::FailedPreconditionError("window: 1 child is open.");
  MemoryWindow window(std::move(object));
  EXPECT_EQ(window.Close(), raw->refusal);
  EXPECT_TRUE(window.is_open());
  EXPECT_EQ(window.remote().key, 3u);
  EXPECT_EQ(journal.destroyed, 0);
  raw->refusal = absl::OkStatus();
  EXPECT_TRUE(window.Close().ok());
  EXPECT_EQ(journal.destroyed, 1);
}

// The destructor cannot refuse. Expect: a line in the log, and the object lives on for its
// children.
TEST(HandleTest, DestructorOfAnUnclosableOneIsLoudAndLeaks) {
  fake::Journal journal;
  auto object = Made(&journal);
  std::unique_ptr<fake::MemoryWindow> leaked;  // freed here, so that leak checkers stay quiet
  object->refusal = absl::FailedPreconditionError("window: 1 child is open.");
  testing::internal::CaptureStderr();
  {
    fake::MemoryWindow* raw = object.get();
    const MemoryWindow window(std::move(object));
    leaked.reset(raw);
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(journal.destroyed, 0);
  EXPECT_NE(log.find("verbena E api: "), std::string::npos) << log;
  EXPECT_NE(log.find("window: 1 child is open."), std::string::npos) << log;
}

TEST(HandleTest, MoveTakesTheObjectAlong) {
  fake::Journal journal;
  MemoryWindow from(Made(&journal));
  const MemoryWindow to = std::move(from);
  EXPECT_FALSE(from.is_open());  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_TRUE(to.is_open());
  EXPECT_EQ(journal.closed, 0);
}

TEST(HandleTest, MoveAssignmentReleasesTheFormer) {
  fake::Journal former, latter;
  MemoryWindow window(Made(&former));
  window = MemoryWindow(Made(&latter));
  EXPECT_EQ(former.closed, 1);
  EXPECT_EQ(former.destroyed, 1);
  EXPECT_EQ(latter.closed, 0);
  window = MemoryWindow();
  EXPECT_EQ(latter.destroyed, 1);
}

TEST(HandleTest, SelfMoveKeepsTheObject) {
  fake::Journal journal;
  MemoryWindow window(Made(&journal));
  MemoryWindow& same = window;
  window = std::move(same);
  EXPECT_TRUE(window.is_open());
  EXPECT_EQ(journal.closed, 0);
}

// What a provider refuses to make is passed on as it is.
TEST(HandleTest, FactoriesPassErrorsOn) {
  fake::Context context;
  ProtectionDomain pd(std::make_unique<fake::ProtectionDomain>(), &context);
  EXPECT_EQ(pd.Register({}, Access::kLocalWrite).status(),
            absl::InvalidArgumentError("register: the span is empty"));
  EXPECT_EQ(pd.CreateSharedReceiveQueue().status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(pd.AllocateWindow().ok());
  EXPECT_TRUE(pd.CreateQueuePair({}).ok());
}

}  // namespace
}  // namespace verbena
