// SPDX-License-Identifier: Apache-2.0
#include "transport/state_table.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace verbena::provider {

namespace {

constexpr Follows no = Follows::kNo;
constexpr Follows ask = Follows::kByModify;
constexpr Follows con = Follows::kByConnection;

// Rows: from. Of connected ones. A reliable queue pair never enters SQE (IBTA 10.3.1.6: errors of
// its send queue lead to ERR), yet could leave it; an unreliable one is taken there by a failed
// request.
constexpr Follows kTable[kQpStateCount][kQpStateCount] = {
    //            RESET INIT RTR  RTS  SQD  SQE  ERR
    /* RESET */ {ask, ask, no, no, no, no, ask},
    /* INIT  */ {ask, ask, con, con, no, no, ask},
    /* RTR   */ {ask, no, ask, con, no, no, ask},
    /* RTS   */ {ask, no, no, ask, ask, no, ask},
    /* SQD   */ {ask, no, no, ask, ask, no, ask},
    /* SQE   */ {ask, no, no, ask, no, no, ask},
    /* ERR   */ {ask, no, no, no, no, no, ask},
};

// Of datagrams: nobody is to be connected with. SQE is entered by a failed send alone.
constexpr Follows kDatagramTable[kQpStateCount][kQpStateCount] = {
    //            RESET INIT RTR  RTS  SQD  SQE  ERR
    /* RESET */ {ask, ask, no, no, no, no, ask},
    /* INIT  */ {ask, ask, ask, no, no, no, ask},
    /* RTR   */ {ask, no, ask, ask, no, no, ask},
    /* RTS   */ {ask, no, no, ask, ask, no, ask},
    /* SQD   */ {ask, no, no, ask, ask, no, ask},
    /* SQE   */ {ask, no, no, ask, no, no, ask},
    /* ERR   */ {ask, no, no, no, no, no, ask},
};

constexpr uint32_t In(QpState s) { return 1u << static_cast<int>(s); }
constexpr uint32_t kLive =
    In(QpState::kInit) | In(QpState::kRtr) | In(QpState::kRts) | In(QpState::kSqd);
constexpr uint32_t kBeforeOrDrained = In(QpState::kInit) | In(QpState::kRtr) | In(QpState::kSqd);

std::string Names(uint32_t states) {
  std::string out;
  for (int i = 0; i < kQpStateCount; ++i) {
    if ((states & (1u << i)) != 0) {
      absl::StrAppend(&out, out.empty() ? "" : ", ", QpStateName(static_cast<QpState>(i)));
    }
  }
  return out;
}

template <typename T>
absl::Status CheckValue(const char* name, const std::optional<T>& value, unsigned max,
                        uint32_t states, QpState state) {
  if (!value) return absl::OkStatus();
  if (static_cast<unsigned>(*value) > max) {
    return absl::InvalidArgumentError(absl::StrCat("modify queue pair: ", name, " ",
                                                   static_cast<unsigned>(*value),
                                                   " is over its maximum ", max));
  }
  if ((states & In(state)) == 0) {
    return absl::InvalidArgumentError(absl::StrCat("modify queue pair: ", name,
                                                   " cannot be set in state ", QpStateName(state),
                                                   ", only in ", Names(states)));
  }
  return absl::OkStatus();
}

}  // namespace

Follows MayFollow(QpState from, QpState to, QpType type) {
  const auto& table = type == QpType::kUd ? kDatagramTable : kTable;
  return table[static_cast<int>(from)][static_cast<int>(to)];
}

absl::Status CheckModify(QpState from, const QpModify& change, QpType type) {
  const QpState to = change.state.value_or(from);
  if (static_cast<int>(to) >= kQpStateCount) {
    return absl::InvalidArgumentError("modify queue pair: no such state");
  }
  switch (change.state ? MayFollow(from, to, type) : Follows::kByModify) {
    case Follows::kByModify:
      break;
    case Follows::kByConnection:
      return absl::FailedPreconditionError(
          absl::StrCat("modify queue pair: ", QpStateName(from), " becomes ", QpStateName(to),
                       " by connecting it to a peer (Path::Connect, ConnectionRequest::Accept)"));
    case Follows::kNo: {
      uint32_t next = 0;
      for (int i = 0; i < kQpStateCount; ++i) {
        if (MayFollow(from, static_cast<QpState>(i), type) == Follows::kByModify) next |= 1u << i;
      }
      return absl::FailedPreconditionError(absl::StrCat("modify queue pair: ", QpStateName(to),
                                                        " cannot follow ", QpStateName(from),
                                                        "; possible: ", Names(next)));
    }
  }
  const bool of_reliable =
      change.min_rnr_timer || change.rnr_retry || change.retry_count || change.timeout;
  const bool datagrams = type == QpType::kUd;
  if ((type != QpType::kRc && of_reliable) ||
      (datagrams ? change.access.has_value() : change.qkey.has_value())) {
    return absl::InvalidArgumentError(
        absl::StrCat("modify queue pair: ",
                     datagrams             ? "access, RNR, retries and timeout"
                     : type == QpType::kUc ? "qkey, RNR, retries and timeout"
                                           : "qkey",
                     " cannot be set on one of type ", QpTypeName(type)));
  }
  // An attribute is judged by the state it will hold in; what leads to ERR or RESET takes none.
  const absl::Status checks[] = {
      CheckValue("access", change.access, 255, kLive, to),
      CheckValue("min_rnr_timer", change.min_rnr_timer, 31, kLive, to),
      CheckValue("rnr_retry", change.rnr_retry, 7, kBeforeOrDrained, to),
      CheckValue("retry_count", change.retry_count, 7, kBeforeOrDrained, to),
      CheckValue("timeout", change.timeout, 31, kBeforeOrDrained, to),
      CheckValue("qkey", change.qkey, UINT32_MAX, kLive, to),
  };
  for (const absl::Status& s : checks) {
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace verbena::provider
