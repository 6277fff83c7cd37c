// SPDX-License-Identifier: Apache-2.0
// The server's side of proto/health.proto. Any thread; nothing here blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "proto/health.verbena.h"

namespace verbena::rpc {

class HealthService final : public Health::AsyncService {
 public:
  HealthService() { SetServing("", true); }

  void SetServing(const std::string& service, bool serving);
  // From now on nothing is served; those who watch are told so, and it was the last that they hear.
  void ShutDown();

  void Check(ServerCall<HealthRequest, HealthResponse> call) override;
  using Stream = ServerStream<HealthRequest, HealthResponse>;
  Task<absl::Status> Watch(ServerContext& context, const HealthRequest& request,
                           Stream& stream) override;

 private:
  class Change;
  struct Watcher {
    std::function<void()> wake;  // null: it is not waiting
    bool gone = false;           // its caller
  };
  uint64_t Enter();
  bool Gone(uint64_t watcher);
  Detached AwaitCaller(uint64_t watcher, Stream& stream);
  HealthResponse::State StateOf(const std::string& service);
  std::vector<std::function<void()>> ChangedLocked();

  std::mutex lock_;
  std::map<std::string, bool> serving_;
  bool shut_down_ = false;
  uint64_t version_ = 0;  // of all that
  std::map<uint64_t, Watcher> watchers_;
  uint64_t next_ = 0;
};

}  // namespace verbena::rpc
