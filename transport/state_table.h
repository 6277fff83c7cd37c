// SPDX-License-Identifier: Apache-2.0
// Which state of a queue pair may follow which, and which attribute may change where: the one table
// of it (IBTA 10.3.1, ibv_modify_qp(3)).
#pragma once

#include "absl/status/status.h"
#include "transport/qp_state.h"

namespace verbena::provider {

enum class Follows : uint8_t {
  kNo,
  kByModify,      // the application may ask for it
  kByConnection,  // only connecting does it: it needs a peer
};
Follows MayFollow(QpState from, QpState to, QpType type = QpType::kRc);

// OK, or why this change is refused in state `from`, with what would be allowed.
absl::Status CheckModify(QpState from, const QpModify& change, QpType type = QpType::kRc);

}  // namespace verbena::provider
