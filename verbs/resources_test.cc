// SPDX-License-Identifier: Apache-2.0
// What is said when a device gives no more objects. The errno values are those of Linux 6.1.
#include "verbs/resources.h"

#include <cerrno>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kRemedy[] = "Close some.";

ibv_device_attr Limits() {
  ibv_device_attr limits{};
  limits.max_pd = 11;
  limits.max_cq = 12;
  limits.max_qp = 13;
  limits.max_mr = 14;
  limits.max_mw = 15;
  limits.max_srq = 16;
  return limits;
}

absl::Status Refused(int error, Resource resource, std::optional<uint64_t> in_use) {
  return NoMore(error, "make it on device rxe0", resource, Limits(), in_use, kRemedy);
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST(NoMore, NamesLimitAndCountOfEachKind) {
  const struct {
    Resource resource;
    const char* text;
  } rows[] = {
      {Resource::kProtectionDomain, "at most 11 protection domains (max_pd), 7 exist"},
      {Resource::kCompletionQueue, "at most 12 completion queues (max_cq), 7 exist"},
      {Resource::kQueuePair, "at most 13 queue pairs (max_qp), 7 exist"},
      {Resource::kMemoryRegion, "at most 14 memory regions (max_mr), 7 exist"},
      {Resource::kMemoryWindow, "at most 15 memory windows (max_mw), 7 exist"},
      {Resource::kSharedReceiveQueue, "at most 16 shared receive queues (max_srq), 7 exist"},
  };
  for (const auto& row : rows) {
    const absl::Status status = Refused(ENOMEM, row.resource, 7);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(Text(status), AllOf(HasSubstr("make it on device rxe0: "), HasSubstr(row.text),
                                    HasSubstr("(errno 12)"), HasSubstr(kRemedy)));
  }
}

TEST(NoMore, WithoutACountTheLimitIsNamed) {
  EXPECT_THAT(Text(Refused(ENOMEM, Resource::kMemoryWindow, std::nullopt)),
              AllOf(HasSubstr("15 memory windows (max_mw):"), Not(HasSubstr("exist"))));
}

TEST(NoMore, SoftRoceSaysInvalidArgument) {
  EXPECT_EQ(Refused(EINVAL, Resource::kQueuePair, 13).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Refused(EINVAL, Resource::kQueuePair, 12).code(), absl::StatusCode::kInvalidArgument);
}

TEST(NoMore, AControlGroupsLimitIsNotTheDevices) {
  const absl::Status status = Refused(EAGAIN, Resource::kMemoryRegion, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(status),
              AllOf(HasSubstr("control group"), HasSubstr("rdma.max"), Not(HasSubstr("max_mr"))));
  // A list of candidates shows the first sentence.
  EXPECT_THAT(Text(status).substr(0, Text(status).find(". ")), HasSubstr("control group"));
}

TEST(InUse, OfADeviceThatIsNotThere) {
  EXPECT_EQ(InUse("nosuch", Resource::kQueuePair), std::nullopt);
}

}  // namespace
}  // namespace verbena::verbs
