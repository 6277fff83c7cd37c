// SPDX-License-Identifier: Apache-2.0
// etcd (https://etcd.io, version 3) through its JSON gateway: as a store of values, as the place
// where servers say that they are there, and as names of channels. Whoever uses it links libcurl.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rpc/names/key_store.h"
#include "rpc/resolver.h"

namespace verbena::rpc {

// "HOST:PORT", or several of one cluster with commas. Connects when it is used.
absl::StatusOr<std::unique_ptr<KeyStore>> OpenEtcd(const std::string& endpoints);

// A server among those of a service, as long as this lives. Under a lease, so that one that dies is
// gone after `lifetime`; made again if etcd has lost it. Any thread.
class Registration {
 public:
  // `name` is what channels open, "etcd:HOST:PORT/SERVICE"; `address`, "10.0.0.1:7500", is where
  // they find this server. Returns at once; goes on trying while etcd cannot be reached.
  static absl::StatusOr<std::unique_ptr<Registration>> Open(
      const std::string& name, const std::string& address,
      absl::Duration lifetime = absl::Seconds(10));
  ~Registration();  // takes it back, in at most a second

  absl::Status WaitUntilRegistered(absl::Duration timeout);

 private:
  class Lease;
  explicit Registration(std::unique_ptr<Lease> lease);
  void Run();

  const std::unique_ptr<Lease> lease_;
  std::mutex lock_;
  std::condition_variable changed_;
  bool registered_ = false;
  absl::Status last_;  // why it is not
  std::thread thread_;
};

// Channel::Open("etcd:HOST:PORT/SERVICE", {.names = EtcdNames}): every server that is registered.
// While etcd is away the last that was known stays.
absl::StatusOr<std::unique_ptr<Resolver>> EtcdNames(const std::string& name);

}  // namespace verbena::rpc
