// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/faults.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace verbena::interop {

namespace {

constexpr absl::Duration kLong = absl::Seconds(20);
constexpr uint32_t kSmall = 16;  // bytes of the posted receive

constexpr const char* kWriteRefused = "SUCCESS REM_ACCESS_ERR";
constexpr const char* kReadRefused = "REM_ACCESS_ERR WR_FLUSH_ERR";
constexpr const char* kSiwWrite = "SUCCESS REM_OP_ERR";  // iWARP devices tell no more
constexpr const char* kSiwRead = "REM_OP_ERR WR_FLUSH_ERR";
constexpr const char* kFlushed = "WR_FLUSH_ERR";
constexpr const char* kLives = "SUCCESS SUCCESS";

constexpr Fault kFaults[] = {
    {"write_no_key", kWriteRefused, kSiwWrite, kFlushed, kFlushed},
    {"read_no_key", kReadRefused, kSiwRead, kFlushed, kFlushed},
    {"write_bounds", kWriteRefused, kSiwWrite, kFlushed, kFlushed},
    {"read_bounds", kReadRefused, kSiwRead, kFlushed, kFlushed},
    {"write_read_only", kWriteRefused, kSiwWrite, kFlushed, kFlushed},
    // siw looks at no right of a read (tests/soft_rdma/deviations/siw.txt).
    {"read_write_only", kLives, kSiwRead, "not needed", kFlushed},
    {"send_no_receive", "SUCCESS RNR_RETRY_EXC_ERR", kSiwWrite, "none", "none"},
    // siw_qp_rx.c siw_proc_send says "no buffer" of one that is too small.
    {"send_too_long", "SUCCESS RNR_RETRY_EXC_ERR", kSiwWrite, "LOC_LEN_ERR", "LOC_LEN_ERR"},
    {"behind_a_write", "SUCCESS REM_ACCESS_ERR", "", kFlushed, ""},  // a read out of bounds
    {"write_invalidated", kWriteRefused, "", "SUCCESS", ""},
};

// What the active end is told. If it requires completion at the peer, the wrong request itself,
// unless it comes behind a good one.
std::string Told(const Fault& fault, bool tcp, bool remote_completion) {
  const std::string told = tcp ? fault.tcp_tells : fault.siw_tells;
  constexpr std::string_view kLocal = "SUCCESS ";
  const bool behind = std::string_view(fault.name).starts_with("behind");
  if (!remote_completion || behind || told == kLives || !told.starts_with(kLocal)) return told;
  return told.substr(kLocal.size()) + " " + kFlushed;
}

std::string Tell(const RemoteBuffer& b) { return absl::StrCat(b.address, " ", b.key); }

RemoteAddress Parse(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ' ');
  RemoteAddress a;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &a.address) ||
      !absl::SimpleAtoi(parts[1], &a.key)) {
    Die(absl::StrCat("the other process lends nothing but: ", text));
  }
  return a;
}

std::string Active(const Fault& fault, bool lives, End& end, SideChannel& side) {
  const std::string_view name = fault.name;
  RemoteAddress good = Parse(side.Exchange("good?"));
  RemoteAddress bad = Parse(side.Exchange("bad?"));
  if (name.ends_with("no_key")) bad = {bad.address, bad.key ^ 0x00ffff00};
  if (name.ends_with("bounds") || name == "behind_a_write") bad.address += 4092;  // of 4096
  if (name == "write_invalidated") {
    const PostResult posted = end.qp.PostSend({.opcode = Opcode::kSendWithInvalidate,
                                               .local = end.region.slice(0, 8),
                                               .invalidate = bad.key});
    if (!posted.ok() || end.AwaitSend(kLong) != WcStatus::kSuccess) return "cannot invalidate";
  }
  SendWr wrong{.local = end.region.slice(0, 2 * kSmall), .remote = bad, .id = 1};
  if (name.starts_with("write")) wrong.opcode = Opcode::kWrite;
  if (name.starts_with("read")) wrong.opcode = Opcode::kRead;
  SendWr right{.opcode = Opcode::kRead, .local = end.region.slice(64, 8), .remote = good, .id = 2};
  if (name == "behind_a_write") {
    right.opcode = Opcode::kWrite;
    wrong.opcode = Opcode::kRead;
    std::swap(wrong, right);
  }
  const SendWr both[] = {wrong, right};
  const PostResult posted = end.qp.PostSend(both);
  std::string statuses;
  for (size_t i = 0; i < posted.accepted; ++i) {
    absl::StrAppend(&statuses, i == 0 ? "" : " ", WcStatusName(end.AwaitSend(kLong)));
  }
  if (lives) side.Exchange("answered");
  return statuses;
}

std::string Passive(const Fault& fault, bool lives, End& end, SideChannel& side) {
  const std::string_view name = fault.name;
  std::vector<std::byte> memory(4096);
  Access access = Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead;
  if (name.ends_with("read_only")) access = Access::kRemoteRead;
  if (name.ends_with("write_only")) access = Access::kLocalWrite | Access::kRemoteWrite;
  MemoryRegion region = Check(end.pd.Register(memory, access), "register");
  const bool receives = name != "send_no_receive";
  if (receives) {
    const PostResult posted = end.qp.PostReceive({.local = end.region.slice(0, kSmall), .id = 9});
    if (!posted.ok()) Die(absl::StrCat("post a receive: ", PostErrorText(posted.error)));
  }
  side.Exchange(Tell(end.region.remote()));
  side.Exchange(Tell(region.remote()));
  WorkCompletion wc;
  if (lives) {
    side.Exchange("answered?");
    return "not needed";
  }
  if (!receives) return "none";
  return WcStatusName(end.AwaitReceive(kLong, &wc));
}

}  // namespace

std::span<const Fault> Faults() { return kFaults; }

Verdict Run(const Fault& fault, bool by_initiator, End& end, SideChannel& side) {
  const bool active = by_initiator == end.options.initiator;
  const bool tcp = end.options.provider == "tcp";
  const std::string told = Told(fault, active == tcp, end.options.remote_completion);
  const bool lives = told == kLives;
  const std::string mine =
      active ? Active(fault, lives, end, side) : Passive(fault, lives, end, side);
  const bool ended = lives || end.qp.WaitUntilDisconnected(kLong).ok();
  const std::string cause(end.qp.cause().message());
  const std::string expected = active ? told : tcp ? fault.receive_of_tcp : fault.receive_of_siw;
  const bool ok = mine == expected && ended;
  const std::string summary =
      absl::StrCat(ok ? "ok " : "NO ", mine, cause.empty() ? "" : absl::StrCat(" (", cause, ")"));
  const std::string theirs = side.Exchange(summary);
  return {ok && theirs.starts_with("ok "),
          absl::StrCat(summary.substr(3), " | ", theirs.substr(3))};
}

}  // namespace verbena::interop
