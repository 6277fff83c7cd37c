// SPDX-License-Identifier: Apache-2.0
// Where a program begins: the devices that it may use, listening and resolving, and all events.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/capabilities.h"
#include "transport/connection.h"
#include "transport/device.h"
#include "transport/events.h"
#include "transport/options.h"
#include "transport/provider.h"

namespace verbena {

// Owns its devices; close everything made from them first. Any thread. A handle to heap state:
// moving it does not move devices or events.
class Context {
 public:
  // InvalidArgument: a device name that cannot be. NotFound: no such device; the message lists
  // those that there are. Unavailable from Listen and Resolve: RDMA is required, and why there is
  // none. ResourceExhausted: out of descriptors, with the limit and the remedy.
  static absl::StatusOr<Context> Open(const ContextOptions& options = {});
  // Over a given provider: how the conformance suite puts a simulated network underneath.
  static absl::StatusOr<Context> OpenOn(std::unique_ptr<provider::Context> provider);

  Context(Context&&) noexcept;
  Context& operator=(Context&&) noexcept;
  ~Context();

  // FailedPrecondition while objects of its devices are open.
  absl::Status Close();

  // Every device, usable or not, with the reason.
  static std::vector<DeviceInfo> ListDevices();
  const std::vector<std::unique_ptr<Device>>& devices() const;

  // "host:port", "[v6]:port", ":port" (any address); port 0: one that is free. Unavailable: the
  // address is in use or not ours. PermissionDenied: a privileged port.
  absl::StatusOr<Listener> Listen(const std::string& address, const ListenOptions& options = {});
  // Looks the name up and chooses the device: tries RDMA where both ends have it, for about a
  // second at most, and remembers for 30 s what came of it. Blocks meanwhile. NotFound: no such
  // host.
  absl::StatusOr<Path> Resolve(const std::string& address, const ResolveOptions& options = {});

  // Out of band: what this end has, for a peer's Choose. At most kMaxContact bytes, opaque, the
  // same each time.
  std::string address() const;
  // The device to make the queue pair's objects on; the peer's Choose of our address names the one
  // at its end. A pure function of both addresses. `why`, if wanted: candidate by candidate.
  // Unavailable: RDMA is required, or nothing is in common, with all reasons. InvalidArgument: not
  // a context's address.
  absl::StatusOr<Device*> Choose(const std::string& peer_address,
                                 std::vector<Candidate>* why = nullptr) const;

  ContextCounters counters() const;
  EventQueue& events() const;

 private:
  static absl::StatusOr<Context> OpenSome(const std::string& name, const std::string& argument,
                                          Rdma rdma);
  explicit Context(std::unique_ptr<ContextState> state);
  std::unique_ptr<ContextState> state_;
};

}  // namespace verbena
