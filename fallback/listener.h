// SPDX-License-Identifier: Apache-2.0
// Listening: sockets become connection requests when the peer's MPA Request has arrived whole.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fallback/device.h"
#include "fallback/engine/handshake.h"
#include "fallback/hub.h"
#include "transport/log.h"
#include "transport/provider.h"

namespace verbena::fallback {

class Listener;
class Meeting;

class ConnectionRequest final : public provider::ConnectionRequest {
 public:
  ConnectionRequest(Device* device, io::Socket socket, engine::PeerRequest peer,
                    ConnectionInfo info);
  ~ConnectionRequest() override;

  absl::Status Close() override;
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  const std::string& private_data() const override { return peer_.private_data; }
  bool rendezvous() const override { return peer_.rendezvous; }
  void Announce(const provider::Selection& selection) override {
    info_.candidates = selection.candidates;
  }
  absl::Status Accept(provider::QueuePair& qp, const AcceptParameters& parameters) override;
  absl::Status Reject(const std::string& private_data) override;

 private:
  absl::Status CheckOpen(const char* what) const;

  Device* const device_;
  io::Socket socket_;
  const engine::PeerRequest peer_;
  ConnectionInfo info_;
};

// An accepted socket whose request has not arrived whole. Owned by its listener.
class Handshake final : public Watched {
 public:
  Handshake(Listener* listener, io::Socket socket) : listener_(listener), socket_(socket) {}
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override;

 private:
  friend class Listener;
  Listener* const listener_;
  io::Socket socket_;
  engine::FrameReader reader_;
};

class Listener final : public provider::Listener, public Watched {
 public:
  static absl::StatusOr<std::unique_ptr<provider::Listener>> Create(Device* device,
                                                                    const std::string& address,
                                                                    const ListenOptions& options);
  // One whose requests are `meeting`'s; nobody's child.
  static absl::StatusOr<std::unique_ptr<Listener>> CreateHidden(Device* device, Meeting* meeting);
  Listener(Device* device, io::Socket socket, int fd, const ListenOptions& options,
           Meeting* meeting);
  ~Listener() override;

  absl::Status Close() override;
  std::string address() const override;
  int fd() const override { return fd_; }
  std::unique_ptr<provider::ConnectionRequest> TryNext() override;
  ListenerCounters counters() const override;

  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override;  // after a pause for want of descriptors

  Device* device() const { return device_; }
  io::Socket socket() const { return socket_; }
  // From a handshake of ours, on the service: it is done, well or not.
  void Arrived(Handshake* handshake, engine::PeerRequest peer);
  void Refused(Handshake* handshake, const std::string& why, std::vector<std::byte> answer = {});

 private:
  static absl::StatusOr<std::unique_ptr<Listener>> Make(Device* device, const std::string& address,
                                                        const ListenOptions& options,
                                                        Meeting* meeting);
  void Decline(Handshake* handshake, const engine::PeerRequest& peer, const char* why);
  // What a handshake's call begins and ends with. Between them Close waits for it.
  io::Socket TakeSocket(Handshake* handshake);
  void Finish(Handshake* handshake, std::unique_ptr<ConnectionRequest> request = nullptr);

  Device* const device_;
  const io::Socket socket_;
  const int fd_;  // eventfd: readable while requests wait
  const ListenOptions options_;
  Meeting* const meeting_;  // null: requests are the application's
  mutable std::mutex mutex_;
  absl::flat_hash_map<Handshake*, std::unique_ptr<Handshake>> handshakes_;
  std::deque<std::unique_ptr<ConnectionRequest>> requests_;
  ListenerCounters counters_;
  LogLimit refusals_;
};

}  // namespace verbena::fallback
