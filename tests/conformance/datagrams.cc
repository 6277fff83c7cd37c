// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/datagrams.h"

#include "absl/strings/str_cat.h"

namespace verbena::conformance {

std::unique_ptr<End> Datagrams::NewEnd(Context& host, EndOptions options) {
  options.type = QpType::kUd;
  options.separate_receive_cq = true;
  auto end = std::make_unique<End>(*host.devices()[0], options);
  MoveToRts(end->qp);
  return end;
}

void Datagrams::MoveToRts(QueuePair& qp, uint32_t qkey) {
  Check(qp.Modify({.state = QpState::kRtr, .qkey = qkey}));
  Check(qp.Modify({.state = QpState::kRts}));
}

WorkCompletion Datagrams::Deliver(End& from, End& to, SendWr request, const ReceiveWr& receive,
                                  Line line) {
  constexpr int kTries = 200;
  request.opcode = Opcode::kSendWithImm;
  request.immediate = next_++;
  PostReceive(to.qp, receive, line);
  for (int i = 0; i < kTries; ++i) {
    Post(from.qp, request, line);
    EXPECT_THAT(WaitOne(from.cq, line), Succeeded(request.id));
    WorkCompletion got;
    const auto came = [&] { return to.receives().Poll({&got, 1}) == 1; };
    while (RunUntil(came, absl::Milliseconds(20))) {
      if (!got.ok() || got.immediate_or_key == request.immediate) return got;
      PostReceive(to.qp, receive, line);  // a copy of an earlier one
    }
  }
  const QpCounters c = to.qp.counters();
  Stop(absl::StrCat("the datagram never arrived; the receiver has made ", c.receive_calls,
                    " calls for ", c.bytes_received, " bytes, and dropped ", c.dropped_no_receive,
                    " without a receive, ", c.dropped_qkey, " by Q_Key, ", c.dropped_other,
                    " others"),
       line);
}

Datagrams::Two Datagrams::MakeTwo(const EndOptions& options) {
  Two two;
  two.server = NewEnd(server(), options);
  two.client = NewEnd(client(), options);
  two.to_server = HandleTo(*two.client, server_address());
  return two;
}

void Datagrams::PostOften(End& from, const SendWr& request) {
  for (uint64_t i = 0; i < kOften; ++i) {
    Post(from.qp, request);
    EXPECT_THAT(WaitOne(from.cq), Succeeded(request.id));
  }
}

void Datagrams::WaitForDrops(End& to, uint64_t QpCounters::*count) {
  if (to.device.capabilities().peer_counters) {
    const uint64_t all = simulated() ? 1 : kOften;
    EXPECT_TRUE(RunUntil([&] { return to.qp.counters().*count >= all; }));
  }
  RunFor(kAWhile);
}

}  // namespace verbena::conformance
