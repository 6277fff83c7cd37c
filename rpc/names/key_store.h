// SPDX-License-Identifier: Apache-2.0
// Small values by name that several processes see: what they tell each other before they are
// connected. OpenEtcd (rpc/names/etcd.h) is one.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace verbena::rpc {

// Any thread; all of it blocks. Unavailable: the store cannot be reached.
class KeyStore {
 public:
  virtual ~KeyStore() = default;
  // In place of what was there. It goes by itself after `lifetime`, in whole seconds.
  virtual absl::Status Put(const std::string& key, const std::string& value,
                           absl::Duration lifetime = absl::InfiniteDuration()) = 0;
  virtual absl::StatusOr<std::optional<std::string>> Get(const std::string& key) = 0;
  virtual absl::StatusOr<std::map<std::string, std::string>> List(const std::string& prefix) = 0;
  virtual absl::Status Delete(const std::string& key) = 0;
  // The value, as soon as there is one; also while the store goes and comes back. DeadlineExceeded.
  virtual absl::StatusOr<std::string> WaitFor(const std::string& key, absl::Duration timeout) = 0;
};

}  // namespace verbena::rpc
