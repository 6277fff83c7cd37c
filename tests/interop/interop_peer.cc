// SPDX-License-Identifier: Apache-2.0
// One end of a matrix of operations × sizes between plain TCP and an iWARP device. Both ends are
// this program:
//   interop_peer --role=responder --provider=verbs:siw0 --address=10.0.2.15:7301
//   --side=10.0.2.15:7300 interop_peer --role=initiator --provider=tcp --address=10.0.2.15:7301
//   --side=10.0.2.15:7300
// The initiator prints a line a cell and `N passed, N failed, N skipped`; status 1 if any failed.
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/interop/cells.h"
#include "tests/interop/faults.h"

ABSL_FLAG(std::string, role, "", "initiator or responder");
ABSL_FLAG(std::string, provider, "tcp", "tcp, or verbs:NAME");
ABSL_FLAG(std::string, address, "", "HOST:PORT of the responder");
ABSL_FLAG(std::string, side, "", "HOST:PORT of the side channel; the responder listens");
ABSL_FLAG(std::string, operations, "write,read,send,send_solicited,send_invalidate", "which");
ABSL_FLAG(std::string, sizes, "0,1,1447,1448,1449,65536,1048576", "bytes");
ABSL_FLAG(std::string, name, "", "what the lines begin with");
ABSL_FLAG(bool, faults, false, "instead of the matrix: what has to be refused, a connection each");
ABSL_FLAG(int, rounds, 0, "of small writes by the initiator, behind the matrix, timed");
ABSL_FLAG(bool, remote_completion, false, "require it");

namespace verbena::interop {
namespace {

std::vector<uint64_t> Sizes() {
  std::vector<uint64_t> sizes;
  for (const auto part : absl::StrSplit(absl::GetFlag(FLAGS_sizes), ',')) {
    uint64_t n = 0;
    if (!absl::SimpleAtoi(part, &n)) Die(absl::StrCat("--sizes: ", part, " is no number"));
    sizes.push_back(n);
  }
  return sizes;
}

std::vector<Operation> Operations() {
  std::vector<Operation> operations;
  for (const auto part : absl::StrSplit(absl::GetFlag(FLAGS_operations), ',')) {
    const size_t before = operations.size();
    for (const Operation each : kOperations) {
      if (part == OperationName(each)) operations.push_back(each);
    }
    if (operations.size() == before) Die(absl::StrCat("--operations: ", part, " is none"));
  }
  return operations;
}

struct Tally {
  int passed = 0, failed = 0, skipped = 0;
};

void Line(bool by_initiator, const char* what, uint64_t size, const char* result,
          const std::string& detail) {
  std::printf("%-40s %-9s %-17s %9llu  %-7s %s\n", absl::GetFlag(FLAGS_name).c_str(),
              by_initiator ? "initiator" : "responder", what, static_cast<unsigned long long>(size),
              result, detail.c_str());
  std::fflush(stdout);
}
void Line(const Cell& cell, const char* result, const std::string& detail) {
  Line(cell.by_initiator, OperationName(cell.operation), cell.size, result, detail);
}

void Connect(End& end, SideChannel& side) {
  const absl::Status connected = end.Connect();
  const std::string theirs = side.Exchange(connected.ok() ? "" : std::string(connected.message()));
  if (!connected.ok() || !theirs.empty()) {
    Die(absl::StrCat("connect: ", connected.message(), " / ", theirs));
  }
}

// The matrix on one connection. The initiator's cells come first: an accepting iWARP end must not
// speak before it (RFC 5044 7.1.2), and where no ready frame was agreed on, nothing else lets it.
Tally Matrix(End& end, SideChannel& side, bool print) {
  Tally tally;
  uint64_t seed = 0;
  const std::string mine = end.qp.capabilities().send_with_invalidate ? "invalidates" : "does not";
  const std::string theirs = side.Exchange(mine);
  bool broken = false;
  for (const bool by_initiator : {true, false}) {
    const std::string& active = by_initiator == end.options.initiator ? mine : theirs;
    for (const Operation operation : Operations()) {
      for (const uint64_t size : Sizes()) {
        const Cell cell{operation, size, by_initiator};
        if (operation == Operation::kSendInvalidate && active != "invalidates") {
          ++tally.skipped;
          if (print) Line(cell, "skipped", "the device's library takes no key to invalidate");
          continue;
        }
        Verdict verdict{false, "the connection broke before"};
        if (!broken) verdict = Run(cell, end, side, ++seed);
        broken |= !verdict.ok;
        ++(verdict.ok ? tally.passed : tally.failed);
        if (print) Line(cell, verdict.ok ? "ok" : "FAILED", verdict.detail);
      }
    }
  }
  return tally;
}

// What a completion costs: writes of 8 bytes, `burst` at a time, none before those are complete.
void Time(End& end, SideChannel& side, uint32_t burst) {
  const RemoteBuffer mine = end.region.remote();
  const std::string theirs = side.Exchange(absl::StrCat(mine.address, " ", mine.key));
  if (end.options.initiator) {
    const std::vector<std::string> parts = absl::StrSplit(theirs, ' ');
    RemoteAddress target;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &target.address) ||
        !absl::SimpleAtoi(parts[1], &target.key)) {
      Die("the other process lends nothing");
    }
    const uint32_t rounds = static_cast<uint32_t>(absl::GetFlag(FLAGS_rounds)) / burst;
    const absl::Time start = absl::Now();
    for (uint32_t i = 0; i < rounds; ++i) {
      for (uint32_t k = 0; k < burst; ++k) {
        const PostResult posted = end.qp.PostSend(
            {.opcode = Opcode::kWrite, .local = end.region.slice(0, 8), .remote = target});
        if (!posted.ok()) Die(PostErrorText(posted.error));
      }
      for (uint32_t k = 0; k < burst; ++k) {
        if (end.AwaitSend(absl::Seconds(10)) != WcStatus::kSuccess) Die("a write failed");
      }
    }
    std::printf("%-40s %u at a time: %.1f us each\n", absl::GetFlag(FLAGS_name).c_str(), burst,
                absl::ToDoubleMicroseconds(absl::Now() - start) / (rounds * burst));
  }
  side.Exchange("timed");
}

// Each on a connection of its own. An accepting end must not speak first, so the initiator does.
Tally AllFaults(End& end, SideChannel& side, bool print) {
  Tally tally;
  const std::string mine = end.ConnectInVain("no room");
  const std::string theirs = side.Exchange(mine);
  const bool heard = mine.empty() && theirs.empty();
  ++(heard ? tally.passed : tally.failed);
  if (print) Line(true, "reject", 0, heard ? "ok" : "FAILED", mine + theirs);
  for (const bool by_initiator : {true, false}) {
    for (const Fault& fault : Faults()) {
      const bool tcp_active =
          (by_initiator == end.options.initiator) == (end.options.provider == "tcp");
      if (*(tcp_active ? fault.tcp_tells : fault.siw_tells) == 0) continue;
      Connect(end, side);
      const Verdict greeting = Run({Operation::kWrite, 8, true}, end, side, 1);
      const Verdict verdict = greeting.ok ? Run(fault, by_initiator, end, side) : greeting;
      ++(verdict.ok ? tally.passed : tally.failed);
      if (print) Line(by_initiator, fault.name, 0, verdict.ok ? "ok" : "FAILED", verdict.detail);
      end.Disconnect();
      side.Exchange("next");
    }
  }
  return tally;
}

int Main() {
  EndOptions options;
  options.provider = absl::GetFlag(FLAGS_provider);
  options.initiator = absl::GetFlag(FLAGS_role) == "initiator";
  options.address = absl::GetFlag(FLAGS_address);
  options.remote_completion = absl::GetFlag(FLAGS_remote_completion);
  for (const uint64_t size : Sizes()) options.memory = std::max(options.memory, size);
  if (!options.initiator && absl::GetFlag(FLAGS_role) != "responder") Die("--role is missing");

  End end(options);
  end.PrepareToConnect();
  const std::string where = absl::GetFlag(FLAGS_side);
  SideChannel side = options.initiator ? SideChannel::Connect(where) : SideChannel::Listen(where);
  side.Exchange("listening");
  if (absl::GetFlag(FLAGS_faults)) {
    const Tally tally = AllFaults(end, side, options.initiator);
    if (options.initiator)
      std::printf("%d passed, %d failed, 0 skipped\n", tally.passed, tally.failed);
    return tally.failed == 0 ? 0 : 1;
  }
  Connect(end, side);
  Tally tally = Matrix(end, side, options.initiator);
  if (absl::GetFlag(FLAGS_rounds) > 0) {
    for (const uint32_t burst : {1, 32}) Time(end, side, burst);
  }
  // What the other end said. siw's program also sees the record at the end of our Request.
  const std::string want = options.initiator ? "from the responder" : "from the initiator";
  const bool record = !options.initiator && options.provider != "tcp";
  const size_t compared = record ? want.size() : end.private_data.size();
  if (end.private_data.substr(0, compared) != want) {
    std::printf("private data: %s\n", PlainText(end.private_data).c_str());
    ++tally.failed;
  }
  side.Exchange("the end");
  end.Disconnect();
  if (options.initiator) {
    std::printf("%d passed, %d failed, %d skipped\n", tally.passed, tally.failed, tally.skipped);
  }
  return tally.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace verbena::interop

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("one end of an interoperability test; see the head of its source");
  absl::ParseCommandLine(argc, argv);
  return verbena::interop::Main();
}
