// SPDX-License-Identifier: Apache-2.0
// An errno of connect or listen as a status for people: object, fact, what to do. One place, so
// that the kernel's streams and the simulated ones say the same.
#pragma once

#include "absl/status/status.h"
#include "transport/address.h"

namespace verbena::io {

using provider::Address;

enum class SocketAction { kConnect, kListen };

// `from`: the local address that a connect asked for, if any. `error`: a positive errno.
absl::Status SocketError(SocketAction action, const Address& at, const Address& from, int error);

// `status`, for ErrnoOf.
absl::Status WithErrno(absl::Status status, int error);

// The errno that `status` was made from or with; 0 if there is none.
int ErrnoOf(const absl::Status& status);

}  // namespace verbena::io
