// SPDX-License-Identifier: Apache-2.0
// The caller's side: asks the peer over the base for a way over RDMA, and tries it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "connect/core.h"
#include "connect/memory.h"
#include "connect/messages.h"

namespace verbena::connect {

class Rendezvous {
 public:
  // Events of its queue pairs carry `tag`.
  Rendezvous(Core* core, void* tag) : core_(*core), tag_(tag) {}

  // Which device is proven to reach `address`, to which `via` leads over the base. May block, for a
  // second and a bit. Leaves `via` announced as a rendezvous.
  Verdict Prove(provider::Path& via, const std::string& address, absl::Duration deadline);

  // When no device is proven: straight to `address`, by the connection manager of a device that has
  // a route. If RDMA is required and nobody there selects; and on iWARP, where it is the call that
  // TCP would make: whatever the peer says if RDMA is required, else if it says nothing but
  // listens. Null: there is none, and then `verdict` has the reasons.
  std::unique_ptr<provider::Path> Straight(Verdict* verdict, const std::string& address, Rdma mode,
                                           absl::Duration deadline);

  // A path to a port that the peer has opened for one connect, on `device` to its `nth`. May block
  // for a round trip.
  absl::StatusOr<std::unique_ptr<provider::Path>> Redirected(provider::Path& via,
                                                             const std::string& address,
                                                             provider::Device* device, uint8_t nth,
                                                             absl::Duration deadline);

  // Of all peers: a connect over a device has failed that was proven to reach one.
  void ForgetProofs() { memory_.ForgetProofs(); }

 private:
  // FailedPrecondition: the peer does not know what this is.
  absl::StatusOr<Answer> AskPeer(provider::Path& via, const Ask& ask, absl::Duration deadline);
  Ask Question(Purpose purpose, uint8_t nth) const;
  // Of devices with that link (and only `device`, if not null): the nearest that finds a route.
  absl::StatusOr<std::unique_ptr<provider::Path>> Route(const Answer& answer,
                                                        const provider::Device* device,
                                                        absl::Duration deadline);
  // Connects over `answer`, once. The device, or why not; `tried`: which one that was.
  absl::StatusOr<provider::Device*> Try(const Answer& answer, absl::Duration time,
                                        std::string* tried);
  // One after the other, beginning with what `answer` offers: a device in `verdict`, or all
  // reasons.
  void TryAll(provider::Path& via, const std::string& address, Answer answer, Verdict* verdict);
  // Every device: those in `tried` with their own reasons, the others with `why`.
  std::vector<Candidate> Reasons(const std::string& why, const std::vector<Candidate>& tried) const;
  // None serves, for those reasons. Counted, and logged.
  std::vector<Candidate> Lost(const std::string& address, Reason reason, const std::string& why,
                              const std::vector<Candidate>& tried);

  Core& core_;
  void* const tag_;
  Memory memory_;
};

}  // namespace verbena::connect
