// SPDX-License-Identifier: Apache-2.0
// The end of a stream whose queue pair is done with it: see Hub::Linger.
#pragma once

#include <vector>

#include "fallback/hub.h"

namespace verbena::fallback {

// The hub's own. The service alone calls it.
class Lingerer final : public Watched {
 public:
  Lingerer(Hub* hub, io::Socket socket, std::vector<std::byte> rest);
  ~Lingerer() override;  // the end of the hub finds it at work
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override;

 private:
  void Begin();
  bool SendRest();  // false: the socket is broken
  void Finish(bool reset);

  Hub* const hub_;
  io::Socket socket_;
  std::vector<std::byte> rest_;
  size_t sent_ = 0;
  bool begun_ = false;
  bool half_closed_ = false;
};

}  // namespace verbena::fallback
