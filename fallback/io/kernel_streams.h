// SPDX-License-Identifier: Apache-2.0
// Streams on kernel TCP. Keeps nothing per socket but the address of each connect under way, for
// its error. Any thread, one at a time per socket.
#pragma once

#include <map>
#include <mutex>

#include "fallback/io/io.h"
#include "fallback/io/local_addresses.h"

namespace verbena::io {

class KernelStreams final : public Streams {
 public:
  absl::StatusOr<Socket> Connect(const Address& to, const Address& from) override;
  absl::Status ConnectResult(Socket socket) override;
  absl::StatusOr<Socket> Listen(const Address& at, int backlog) override;
  int Accept(Socket listener) override;
  ssize_t Receive(Socket socket, std::span<const iovec> into) override;
  ssize_t Send(Socket socket, std::span<const iovec> from) override;
  void FinishSending(Socket socket) override;
  void Close(Socket socket, bool reset) override;
  void SetLiveness(Socket socket, const Liveness& liveness) override;
  void SetTrafficClass(Socket socket, uint8_t traffic_class) override;
  uint32_t MaxSegment(Socket socket) const override;
  std::vector<Address> Addresses() const override { return LocalAddresses(); }
  Address Local(Socket socket) const override;
  Address Peer(Socket socket) const override;

 private:
  struct Attempt {
    Address to, from;
  };
  std::mutex mutex_;
  std::map<Socket, Attempt> connecting_;  // guarded by mutex_
};

}  // namespace verbena::io
