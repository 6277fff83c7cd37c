// SPDX-License-Identifier: Apache-2.0
// One public address for RDMA and TCP callers. A listener of the base owns it; callers that have
// RDMA ask there and are sent to a port on a device. If RDMA is required, listeners of the devices
// stand beside it, for callers that know rdma_cm and nothing of selection.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "connect/core.h"
#include "connect/offers.h"
#include "transport/log.h"
#include "transport/provider.h"

namespace verbena::connect {

class Context;

// What listens at the public address.
struct Doors {
  std::unique_ptr<provider::Listener> base;  // null: an iWARP device has the port, which is TCP's
  std::vector<std::unique_ptr<provider::Listener>> devices = {};

  provider::Listener& first() const { return base != nullptr ? *base : *devices.front(); }
  void Close();
};

class Listener final : public provider::Listener {
 public:
  static absl::StatusOr<std::unique_ptr<Listener>> Create(Context* context, Core* core,
                                                          const std::string& address,
                                                          const ListenOptions& options);
  Listener(Context* context, Core* core, Doors doors, int fd, const ListenOptions& options);
  ~Listener() override;

  absl::Status Close() override;
  std::string address() const override { return doors_.first().address(); }
  int fd() const override { return fd_; }
  std::unique_ptr<provider::ConnectionRequest> TryNext() override;
  ListenerCounters counters() const override;

  // The context's, on the service, under its lock. Never blocks. When it wants to be called again.
  absl::Duration Serve(absl::Duration now);
  void CloseUnderLock();

 private:
  void AnswerRendezvous(provider::ConnectionRequest& request, absl::Duration now);
  void TakeFromBase(std::unique_ptr<provider::ConnectionRequest> request);
  void TakeFromDevice(std::unique_ptr<provider::ConnectionRequest> request, const char* why,
                      const std::vector<Candidate>& failed);
  void Hand(std::unique_ptr<provider::ConnectionRequest> request);

  Context& context_;
  Core& core_;
  Doors doors_;
  const int fd_;  // eventfd: readable while requests wait
  const ListenOptions options_;
  const Rdma mode_;
  Offers offers_;  // the context's lock
  LogLimit strange_;
  mutable std::mutex mutex_;
  std::deque<std::unique_ptr<provider::ConnectionRequest>> ready_;
  ListenerCounters counters_;
};

}  // namespace verbena::connect
