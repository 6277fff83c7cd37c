// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/cells.h"

#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace verbena::interop {

namespace {

constexpr uint64_t kTimed = 1 << 20;  // bytes from which a rate says something

bool IsSend(Operation operation) { return operation >= Operation::kSend; }

// Thirty seconds, and as much as an emulated CPU needs for the bytes.
absl::Duration Patience(uint64_t size) {
  return absl::Seconds(30) + absl::Seconds(static_cast<double>(size) / (4 << 20));
}
int Seconds(uint64_t size) { return static_cast<int>(absl::ToInt64Seconds(Patience(size))) + 30; }

// What the passive end tells the active one: address, key, and a key that may be invalidated.
struct Lent {
  RemoteAddress target;
  uint32_t spare = 0;
};

std::string Encode(const Lent& lent) {
  return absl::StrCat(lent.target.address, " ", lent.target.key, " ", lent.spare);
}

Lent Decode(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ' ');
  Lent lent;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &lent.target.address) ||
      !absl::SimpleAtoi(parts[1], &lent.target.key) || !absl::SimpleAtoi(parts[2], &lent.spare)) {
    Die("the other process lends nothing but: " + text);
  }
  return lent;
}

SendWr Request(const Cell& cell, const End& end, const Lent& lent) {
  SendWr wr{.local = end.region.slice(0, static_cast<uint32_t>(cell.size)),
            .remote = lent.target,
            .id = cell.size};
  switch (cell.operation) {
    case Operation::kWrite:
      wr.opcode = Opcode::kWrite;
      break;
    case Operation::kRead:
      wr.opcode = Opcode::kRead;
      break;
    case Operation::kSendSolicited:
      wr.flags = SendFlags::kSolicited;
      break;
    case Operation::kSendInvalidate:
      wr.opcode = Opcode::kSendWithInvalidate;
      wr.invalidate = lent.spare;
      break;
    case Operation::kSend:
      break;
  }
  return wr;
}

// "" or what is wrong.
std::string Receive(const Cell& cell, End& end) {
  WorkCompletion wc;
  const WcStatus status = end.AwaitReceive(Patience(cell.size), &wc);
  if (status == WcStatus::kGeneralError) return "no receive completion";
  if (status != WcStatus::kSuccess) return absl::StrCat("receive: ", WcStatusName(status));
  if (wc.length != cell.size) return absl::StrCat("received ", wc.length, " bytes");
  return "";
}

// siw makes no solicited events (tests/soft_rdma/deviations/siw.txt), TCP does.
std::string Solicited(const Cell& cell, End& end) {
  if (!IsSend(cell.operation) || end.options.provider != "tcp") return "";
  CqEvent event;
  if (cell.operation == Operation::kSendSolicited) {
    return end.channel.Next(absl::Seconds(10)).ok() ? "" : "no event for a solicited send";
  }
  return end.channel.TryNext(&event) ? "an event for a send that is not solicited" : "";
}

// Posts it and waits for it. "" or what is wrong.
std::string Complete(End& end, const SendWr& request) {
  uint64_t size = 0;
  for (const Sge& each : request.local) size += each.length;
  const PostResult posted = end.qp.PostSend(request);
  if (!posted.ok()) return absl::StrCat("post: ", PostErrorText(posted.error));
  const WcStatus status = end.AwaitSend(Patience(size));
  if (status == WcStatus::kSuccess) return "";
  if (status == WcStatus::kGeneralError) return "no completion";
  return absl::StrCat(WcStatusName(status), " (", end.qp.cause().message(), ")");
}

Verdict Active(const Cell& cell, End& end, SideChannel& side, uint64_t seed) {
  const bool read = cell.operation == Operation::kRead;
  if (read) {
    end.FillGuard(cell.size);
  } else {
    end.FillPattern(seed, cell.size);
  }
  const Lent lent = Decode(side.Exchange("ready", Seconds(cell.size)));
  const absl::Time start = absl::Now();
  std::string mine = Complete(end, Request(cell, end, lent));
  const absl::Duration took = absl::Now() - start;
  if (mine.empty() && read) mine = end.Compare(seed, cell.size);
  if (mine.empty() && cell.operation == Operation::kWrite) {
    // A write tells its target nothing, and its completion may be local. The answer to a read
    // behind it says that it is in memory (RFC 5040 5.5). Not of nothing: siw answers that with
    // bytes of the read before, if it is busy (Linux 6.1, siw_qp.c siw_activate_tx, siw_qp_tx.c
    // siw_qp_sq_proc_tx).
    mine = Complete(
        end, {.opcode = Opcode::kRead, .local = end.region.slice(0, 8), .remote = lent.target});
  }
  (void)side.Exchange(mine.empty() ? "done" : "failed", Seconds(cell.size));
  const std::string theirs = side.Exchange(mine, Seconds(cell.size));
  Verdict verdict;
  verdict.ok = mine.empty() && theirs.empty();
  if (!verdict.ok) {
    verdict.detail = absl::StrCat(mine, mine.empty() || theirs.empty() ? "" : "; ",
                                  theirs.empty() ? "" : "passive: ", theirs);
  } else if (cell.size < kTimed) {
    verdict.detail = absl::StrFormat("%d us", absl::ToInt64Microseconds(took));
  } else {
    verdict.detail = absl::StrFormat(
        "%.0f MB/s", static_cast<double>(cell.size) / 1e6 / absl::ToDoubleSeconds(took));
  }
  return verdict;
}

Verdict Passive(const Cell& cell, End& end, SideChannel& side, uint64_t seed) {
  Lent lent{{end.region.address(), end.region.remote_key()}, 0};
  std::vector<std::byte> spare_memory(4096);
  MemoryRegion spare;
  if (cell.operation == Operation::kRead) {
    end.FillPattern(seed, cell.size);
    std::fill_n(&end.memory[cell.size], End::kGuard, std::byte{0});
  } else {
    end.FillGuard(cell.size);
  }
  if (cell.operation == Operation::kSendInvalidate) {
    spare = Check(end.pd.Register(spare_memory, Access::kLocalWrite | Access::kRemoteWrite),
                  "register");
    lent.spare = spare.remote_key();
  }
  if (IsSend(cell.operation)) {
    if (end.options.provider == "tcp") {
      Check(end.receive_cq.RequestNotify(Notify::kSolicited), "arm");
    }
    const PostResult posted = end.qp.PostReceive(
        {.local = end.region.slice(0, static_cast<uint32_t>(cell.size)), .id = cell.size});
    if (!posted.ok()) Die(absl::StrCat("post a receive: ", PostErrorText(posted.error)));
  }
  (void)side.Exchange(Encode(lent), Seconds(cell.size));
  std::string mine;
  const bool done = side.Exchange("waiting", Seconds(cell.size)) == "done";
  if (done && IsSend(cell.operation)) mine = Receive(cell, end);
  if (done && mine.empty() && cell.operation != Operation::kRead) {
    mine = end.Compare(seed, cell.size);
  }
  if (done && mine.empty()) mine = Solicited(cell, end);
  const std::string theirs = side.Exchange(mine, Seconds(cell.size));
  return {mine.empty() && theirs.empty(), ""};
}

}  // namespace

const char* OperationName(Operation operation) {
  switch (operation) {
    case Operation::kWrite:
      return "write";
    case Operation::kRead:
      return "read";
    case Operation::kSend:
      return "send";
    case Operation::kSendSolicited:
      return "send_solicited";
    case Operation::kSendInvalidate:
      return "send_invalidate";
  }
  return "?";
}

Verdict Run(const Cell& cell, End& end, SideChannel& side, uint64_t seed) {
  return cell.by_initiator == end.options.initiator ? Active(cell, end, side, seed)
                                                    : Passive(cell, end, side, seed);
}

}  // namespace verbena::interop
