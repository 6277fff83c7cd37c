// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/link.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::tool {

absl::StatusOr<std::unique_ptr<Link>> Link::Make(Device& device, const LinkDepth& depth) {
  auto link = std::make_unique<Link>();
  absl::StatusOr<ProtectionDomain> pd = device.AllocateProtectionDomain();
  if (!pd.ok()) return pd.status();
  link->pd_ = *std::move(pd);
  absl::StatusOr<CompletionQueue> cq =
      device.CreateCompletionQueue({.entries = depth.sends + depth.receives + 16});
  if (!cq.ok()) return cq.status();
  link->cq_ = *std::move(cq);
  QueuePairOptions options{.send_cq = &link->cq_, .receive_cq = &link->cq_};
  options.limits.max_send_wr = depth.sends;
  options.limits.max_receive_wr = depth.receives;
  absl::StatusOr<QueuePair> qp = link->pd_.CreateQueuePair(options);
  if (!qp.ok()) return qp.status();
  link->qp_ = *std::move(qp);
  return link;
}

absl::StatusOr<Buffer*> Link::AddBuffer(size_t size, Access access) {
  absl::StatusOr<Buffer> buffer = Buffer::Make(pd_, size, access);
  if (!buffer.ok()) return buffer.status();
  buffers_.push_back(std::make_unique<Buffer>(*std::move(buffer)));
  return buffers_.back().get();
}

absl::StatusOr<WorkCompletion> Link::Await(WcOpcode wanted, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    absl::StatusOr<std::vector<WorkCompletion>> done = cq_.Wait(1, deadline - absl::Now());
    if (!done.ok()) {
      if (!absl::IsDeadlineExceeded(done.status())) return done.status();
      return absl::DeadlineExceededError(absl::StrCat(
          "the peer ", qp_.connection().peer, " has not answered for ",
          absl::FormatDuration(timeout), ". Is it stopped, or busy? --timeout changes the bound."));
    }
    const WorkCompletion& completion = done->front();
    if (!completion.ok()) return WhyFailed(qp_, completion);
    if (completion.opcode == wanted) return completion;
    if (completion.opcode != WcOpcode::kSend) {
      return absl::InternalError(absl::StrCat(
          "the peer ", qp_.connection().peer, " is out of step: ", WcOpcodeName(completion.opcode),
          " came while ", WcOpcodeName(wanted),
          " was awaited. Does it speak the same protocol and version?"));
    }
  }
}

absl::Status WhyFailed(QueuePair& qp, const WorkCompletion& failed) {
  // The completion may be here a moment before the queue pair knows the cause.
  (void)qp.WaitUntilDisconnected(absl::Milliseconds(200));
  const ConnectionInfo connection = qp.connection();
  const absl::Status cause = qp.cause();
  if (failed.status == WcStatus::kFlushed && cause.ok()) {
    return absl::CancelledError(absl::StrCat("the peer ", connection.peer, " disconnected"));
  }
  // A flushed request only fell with the others; what failed first says what happened, and the
  // cause tells it best.
  const absl::Status own = failed.ToStatus();
  const bool flushed = failed.status == WcStatus::kFlushed;
  return absl::Status(
      flushed ? cause.code() : own.code(),
      absl::StrCat("connection with ", connection.peer, ": ",
                   flushed || cause.ok() ? "" : absl::StrCat(WcStatusName(failed.status), ": "),
                   cause.ok() ? own.message() : cause.message()));
}

}  // namespace verbena::tool
