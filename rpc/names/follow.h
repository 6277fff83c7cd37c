// SPDX-License-Identifier: Apache-2.0
// Keys of etcd as they come and go.
#pragma once

#include <map>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "rpc/names/gateway.h"

namespace verbena::rpc {

enum class Keys : bool { kOne, kWithPrefix };
using KeyValues = std::map<std::string, std::string>;

// What etcd's interval that begins with `key` ends with.
std::string EndOfRange(const std::string& key, Keys which);

// Tells `seen` what is there, and again after each change, until it says false: OK. No change is
// lost when the connection is, as the next one begins behind the last revision that was seen; if
// etcd does not have that any more, or has begun anew, all is read again. `failed` hears of each
// connection that did not come about, or was lost. DeadlineExceeded, Cancelled: the gateway was
// stopped.
absl::Status FollowKeys(Gateway& gateway, const std::string& key, Keys which, absl::Time deadline,
                        absl::FunctionRef<bool(const KeyValues&)> seen,
                        absl::FunctionRef<void(const absl::Status&)> failed);

}  // namespace verbena::rpc
