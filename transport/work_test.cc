// SPDX-License-Identifier: Apache-2.0
// What posts and completions answer as a Status: the code is the caller's next step.
#include <string>

#include "gtest/gtest.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena {
namespace {

using absl::StatusCode;

struct PostRow {
  PostError error;
  StatusCode code;
  const char* part;  // of the text
};

class Posts : public testing::TestWithParam<PostRow> {};

TEST_P(Posts, SayWhatToDo) {
  const absl::Status status = PostResult{3, GetParam().error}.ToStatus();
  EXPECT_EQ(status.code(), GetParam().code);
  EXPECT_NE(status.message().find("post: 3 taken, the next request was refused: "),
            std::string::npos)
      << status;
  EXPECT_NE(status.message().find(GetParam().part), std::string::npos) << status;
}

INSTANTIATE_TEST_SUITE_P(
    All, Posts,
    testing::Values(
        PostRow{PostError::kQueueFull, StatusCode::kResourceExhausted, "Poll completions"},
        PostRow{PostError::kInvalidState, StatusCode::kFailedPrecondition, "need RTS"},
        PostRow{PostError::kTooManySges, StatusCode::kInvalidArgument, "max_send_sge"},
        PostRow{PostError::kInlineTooLong, StatusCode::kInvalidArgument, "max_inline"},
        PostRow{PostError::kInvalidOpcode, StatusCode::kInvalidArgument, "not an opcode"},
        PostRow{PostError::kUnsupported, StatusCode::kUnimplemented, "capabilities()"},
        PostRow{PostError::kUsesSharedQueue, StatusCode::kInvalidArgument, "Post them there"}),
    [](const auto& info) { return "Error" + std::to_string(static_cast<int>(info.param.error)); });

TEST(PostResult, OkAndFirst) {
  EXPECT_TRUE(PostResult{}.ok());
  EXPECT_TRUE((PostResult{5, PostError::kNone}.ToStatus().ok()));
  const PostResult refused{0, PostError::kQueueFull};
  EXPECT_FALSE(refused.ok());
  EXPECT_EQ(refused.ToStatus().message(),
            "post: the first request was refused: the queue is full. Poll completions, then post "
            "the rest.");
}

struct CompletionRow {
  WcStatus status;
  const char* name;
  StatusCode code;
};

class Completions : public testing::TestWithParam<CompletionRow> {};

TEST_P(Completions, CodeIsTheNextStep) {
  const WorkCompletion wc = {.id = 17, .status = GetParam().status, .qp_number = 0x12};
  EXPECT_EQ(wc.ok(), GetParam().code == StatusCode::kOk);
  EXPECT_EQ(wc.ToStatus().code(), GetParam().code);
  EXPECT_STREQ(WcStatusName(wc.status), GetParam().name);
  if (wc.ok()) return;
  EXPECT_EQ(wc.ToStatus().message(),
            std::string("wr 17 on qp 0x12: ") + GetParam().name + ": " + WcStatusText(wc.status));
}

INSTANTIATE_TEST_SUITE_P(
    All, Completions,
    testing::Values(
        CompletionRow{WcStatus::kSuccess, "SUCCESS", StatusCode::kOk},
        CompletionRow{WcStatus::kLocalLengthError, "LOC_LEN_ERR", StatusCode::kInvalidArgument},
        CompletionRow{WcStatus::kLocalQpOperationError, "LOC_QP_OP_ERR", StatusCode::kInternal},
        CompletionRow{WcStatus::kLocalProtectionError, "LOC_PROT_ERR",
                      StatusCode::kInvalidArgument},
        CompletionRow{WcStatus::kFlushed, "WR_FLUSH_ERR", StatusCode::kUnavailable},
        CompletionRow{WcStatus::kWindowBindError, "MW_BIND_ERR", StatusCode::kInvalidArgument},
        CompletionRow{WcStatus::kBadResponse, "BAD_RESP_ERR", StatusCode::kInternal},
        CompletionRow{WcStatus::kLocalAccessError, "LOC_ACCESS_ERR", StatusCode::kPermissionDenied},
        CompletionRow{WcStatus::kRemoteInvalidRequest, "REM_INV_REQ_ERR",
                      StatusCode::kInvalidArgument},
        CompletionRow{WcStatus::kRemoteAccessError, "REM_ACCESS_ERR",
                      StatusCode::kPermissionDenied},
        CompletionRow{WcStatus::kRemoteOperationError, "REM_OP_ERR", StatusCode::kUnavailable},
        CompletionRow{WcStatus::kRetryExceeded, "RETRY_EXC_ERR", StatusCode::kUnavailable},
        CompletionRow{WcStatus::kRnrRetryExceeded, "RNR_RETRY_EXC_ERR",
                      StatusCode::kResourceExhausted},
        CompletionRow{WcStatus::kGeneralError, "GENERAL_ERR", StatusCode::kInternal}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(WorkCompletion, ProvidersNumberIsShown) {
  const WorkCompletion wc = {.status = WcStatus::kGeneralError, .vendor_error = 0x0105};
  EXPECT_NE(wc.ToStatus().message().find("(provider's number 0x105)"), std::string::npos);
}

TEST(CompletionOf, EveryOpcode) {
  using Op = Opcode;
  using Wc = WcOpcode;
  for (const Op op : {Op::kSend, Op::kSendWithImm, Op::kSendWithInvalidate}) {
    EXPECT_EQ(CompletionOf(op), Wc::kSend);
  }
  for (const Op op : {Op::kWrite, Op::kWriteWithImm}) EXPECT_EQ(CompletionOf(op), Wc::kWrite);
  EXPECT_EQ(CompletionOf(Op::kRead), Wc::kRead);
  EXPECT_EQ(CompletionOf(Op::kCompareSwap), Wc::kCompareSwap);
  EXPECT_EQ(CompletionOf(Op::kFetchAdd), Wc::kFetchAdd);
  EXPECT_EQ(CompletionOf(Op::kLocalInvalidate), Wc::kLocalInvalidate);
  EXPECT_EQ(CompletionOf(Op::kBindWindow), Wc::kBindWindow);
}

}  // namespace
}  // namespace verbena
