// SPDX-License-Identifier: Apache-2.0
// How the two processes of a test agree on what comes next: lines over a plain TCP connection, in
// lockstep. It stays when the connection under test breaks, and no cell needs it to work.
#pragma once

#include <string>

namespace verbena::interop {

// Ends the program with status 3: this very test cannot go on.
[[noreturn]] void Die(const std::string& why);

class SideChannel {
 public:
  static SideChannel Listen(const std::string& host_port);   // takes one caller
  static SideChannel Connect(const std::string& host_port);  // tries for two minutes
  SideChannel(SideChannel&& other) noexcept;
  ~SideChannel();

  // Sends `mine`, which holds no line feed, and returns the peer's. Dies after `seconds`.
  std::string Exchange(const std::string& mine, int seconds = 60);

 private:
  explicit SideChannel(int socket) : socket_(socket) {}
  int socket_;
  std::string read_;
};

}  // namespace verbena::interop
