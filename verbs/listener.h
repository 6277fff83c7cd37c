// SPDX-License-Identifier: Apache-2.0
// Listening: rdma_listen(3). A caller becomes a connection request when its message arrives.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/provider.h"
#include "verbs/device.h"
#include "verbs/service.h"

namespace verbena::verbs {

class ConnectionRequest final : public provider::ConnectionRequest, public CmHandler {
 public:
  ConnectionRequest(Device* device, rdma_cm_id* id, CmEvent event, ConnectionInfo info);
  ~ConnectionRequest() override;

  absl::Status Close() override;
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  const std::string& private_data() const override { return offer_.private_data; }
  void Announce(const provider::Selection& selection) override {
    info_.candidates = selection.candidates;
  }
  absl::Status Accept(provider::QueuePair& qp, const AcceptParameters& parameters) override;
  absl::Status Reject(const std::string& private_data) override;

  void OnCm(const CmEvent& event) override;  // the caller leaves before the answer

  // With the mutex held: says no, and forgets the identifier.
  void Refuse(const std::string& private_data);
  void DeviceGone();

 private:
  absl::Status CheckOpen(const char* what) const;
  void Answered();  // or nobody is there to be answered

  Device* const device_;
  rdma_cm_id* id_;  // null: answered, or the device is gone
  const CmEvent offer_;
  ConnectionInfo info_;
  bool left_ = false;
};

class Listener final : public provider::Listener, public CmHandler {
 public:
  // `find`: the device of the context with this name, or null.
  using FindDevice = std::function<Device*(const char* name)>;
  static absl::StatusOr<std::unique_ptr<provider::Listener>> Create(Service* service,
                                                                    Children* context,
                                                                    FindDevice find,
                                                                    const std::string& address,
                                                                    const ListenOptions& options);
  Listener(Service* service, Children* context, FindDevice find, const ListenOptions& options,
           int fd);
  ~Listener() override;

  absl::Status Close() override;
  std::string address() const override { return address_; }
  int fd() const override { return fd_; }
  std::unique_ptr<provider::ConnectionRequest> TryNext() override;
  ListenerCounters counters() const override;

  void OnCm(const CmEvent& event) override;

 private:
  absl::Status Bind(const Address& address);
  // With the service's mutex held. 0 and an identifier more that listens, or an errno.
  int Listen(Address address);
  void StopListening();

  Service* const service_;
  Children* const context_;
  const FindDevice find_;
  const ListenOptions options_;
  const int fd_;                  // eventfd: readable while requests wait
  std::vector<rdma_cm_id*> ids_;  // two for [::]
  std::string address_;
  std::deque<std::unique_ptr<ConnectionRequest>> requests_;
  ListenerCounters counters_;
};

}  // namespace verbena::verbs
