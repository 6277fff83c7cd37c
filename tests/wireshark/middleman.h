// SPDX-License-Identifier: Apache-2.0
// Stands between two ends of a TCP connection and changes the caller's MPA Request: without the
// record each end takes the other for a plain iWARP peer; with C both use CRC.
#pragma once

#include <cstdint>
#include <string>
#include <thread>

namespace verbena::testing {

struct Changes {
  bool cut_record = false;
  bool ask_for_crc = false;
};

class Middleman {
 public:
  // Takes one connection to 127.0.0.1:port() and makes one to 127.0.0.1:`to`.
  Middleman(const std::string& to, const Changes& changes);
  ~Middleman();  // when both ends have closed, or never came
  Middleman(const Middleman&) = delete;
  Middleman& operator=(const Middleman&) = delete;

  std::string port() const { return std::to_string(port_); }

 private:
  void Run(uint16_t to, Changes changes);

  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace verbena::testing
