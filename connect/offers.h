// SPDX-License-Identifier: Apache-2.0
// The ports that a listener has opened on RDMA devices, each for one connection, and the proofs
// that came in on them. Used by the service alone; whoever owns it has the lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "connect/core.h"
#include "connect/probe.h"
#include "transport/log.h"

namespace verbena::connect {

class Offers {
 public:
  // Events of its queue pairs carry `tag`.
  Offers(Core* core, void* tag) : core_(*core), tag_(tag) {}
  ~Offers() { Close(); }

  // Opens a port for the caller behind `request` if there is a device for it.
  Answer Open(const Ask& ask, const ConnectionInfo& caller, absl::Duration now);
  // A request of the application's, and devices that rank before its own and failed.
  struct Arrival {
    std::unique_ptr<provider::ConnectionRequest> request;
    std::vector<Candidate> failed;
  };
  // Looks after all of them, and returns what has come.
  std::vector<Arrival> Serve(absl::Duration now);
  void Close();
  absl::Duration NextDeadline() const;  // InfiniteDuration: none

 private:
  struct Offer {
    std::unique_ptr<provider::Listener> listener;
    Purpose purpose;
    Token token;
    Ip peer;  // its host
    absl::Duration until;
    std::vector<Candidate> failed;
  };
  struct Proof {
    std::unique_ptr<Probe> probe;
    absl::Duration until;
  };
  Answer Refuse(Reason reason, const std::string& text, uint8_t more = 0);
  void CheckProof(const Offer& offer, std::unique_ptr<provider::ConnectionRequest> request,
                  absl::Duration now);

  Core& core_;
  void* const tag_;
  std::list<Offer> offers_;
  std::list<Proof> proofs_;
  std::map<const Usable*, std::string> failures_;  // why a device could not listen the last time
  LogLimit strange_;
};

}  // namespace verbena::connect
