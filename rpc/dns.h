// SPDX-License-Identifier: Apache-2.0
// "dns:storage.example:7500": all addresses of a host name, asked for again from time to time and
// when a server was lost.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rpc/resolver.h"

namespace verbena::rpc {

// With getaddrinfo, which blocks: "127.0.0.1:7500", "[::1]:7500". NotFound, Unavailable.
absl::StatusOr<std::vector<std::string>> LookUpHost(const std::string& host,
                                                    const std::string& port);

class DnsResolver final : public Resolver {
 public:
  using LookUp = std::function<absl::StatusOr<std::vector<std::string>>()>;
  // `period` between two looks; LookAgain() makes it `soonest`.
  DnsResolver(LookUp look_up, absl::Duration period, absl::Duration soonest = absl::Seconds(1))
      : look_up_(std::move(look_up)), period_(period), soonest_(soonest) {}
  ~DnsResolver() override;  // waits for a look-up that is under way

  void Start(Changed changed) override;
  void LookAgain() override;

 private:
  void Run(const Changed& changed);

  const LookUp look_up_;
  const absl::Duration period_;
  const absl::Duration soonest_;
  std::mutex lock_;
  std::condition_variable wanted_;
  bool again_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace verbena::rpc
