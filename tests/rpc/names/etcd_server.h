// SPDX-License-Identifier: Apache-2.0
// A real etcd of a test's own, on loopback, with data that outlive it.
#pragma once

#include <memory>
#include <string>

#include "tests/process/process.h"

namespace verbena::testing {

// A port of loopback that was free a moment ago.
int FreePort();

class EtcdServer {
 public:
  EtcdServer();  // runs, and answers
  ~EtcdServer();

  void Kill();                   // SIGKILL
  void Start();                  // again, with its data and port
  void LoseData();               // while it is killed
  std::string endpoint() const;  // "127.0.0.1:PORT"
  // "etcd:127.0.0.1:PORT/SERVICE"
  std::string Name(const std::string& service) const;

 private:
  const int port_ = FreePort();
  const int peer_port_ = FreePort();
  const std::string data_;
  std::unique_ptr<Process> process_;
};

}  // namespace verbena::testing
