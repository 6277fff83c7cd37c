// SPDX-License-Identifier: Apache-2.0
// Datagrams on kernel UDP. Keeps nothing. Any thread, one at a time per socket.
#pragma once

#include "fallback/io/datagrams.h"

namespace verbena::io {

class KernelDatagrams final : public Datagrams {
 public:
  KernelDatagrams();

  absl::StatusOr<Socket> Open(uint16_t port, bool shared) override;
  int Send(Socket socket, std::span<const Outgoing> datagrams) override;
  int Receive(Socket socket, std::span<Incoming> datagrams) override;
  absl::Status Join(Socket socket, const Ip& group, const Ip& at) override;
  absl::Status Leave(Socket socket, const Ip& group, const Ip& at) override;

 private:
  absl::Status Member(Socket socket, const Ip& group, const Ip& at, bool join) const;

  const bool v6_;  // else the kernel has IPv4 only
};

}  // namespace verbena::io
