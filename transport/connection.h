// SPDX-License-Identifier: Apache-2.0
// How queue pairs find each other: listen, accept, reject, resolve, connect, as in rdma_cm(7).
// Any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/counters.h"
#include "transport/device.h"
#include "transport/handle.h"
#include "transport/options.h"
#include "transport/provider.h"
#include "transport/queue_pair.h"

namespace verbena {

struct ContextState;

// A peer that wants to connect. Answer it once; destroying it unanswered rejects.
class ConnectionRequest : public Handle<provider::ConnectionRequest> {
 public:
  ConnectionRequest() = default;
  ConnectionRequest(std::unique_ptr<provider::ConnectionRequest> impl, Device* device)
      : Handle(std::move(impl)), device_(device) {}

  // The device that the connection comes in on; make the queue pair's objects on it.
  Device& device() const { return *device_; }
  const ConnectionInfo& info() const { return impl_->info(); }
  const std::string& private_data() const { return impl_->private_data(); }

  // The queue pair may be posted to at once; what is sent goes out when the peer is ready.
  // kEstablished follows. InvalidArgument: private data too long, or a queue pair of another
  // device. FailedPrecondition: the queue pair is not in INIT, or the request was answered.
  // Unavailable: the peer left. FailedPrecondition with the peer's lack if `parameters.require` is
  // not met (the peer is rejected).
  absl::Status Accept(QueuePair& qp, const AcceptParameters& parameters = {}) {
    return impl_->Accept(*qp.impl(), parameters);
  }
  absl::Status Reject(const std::string& private_data = "") { return impl_->Reject(private_data); }

 private:
  Device* device_ = nullptr;
};

class Listener : public Handle<provider::Listener> {
 public:
  Listener() = default;
  Listener(std::unique_ptr<provider::Listener> impl, ContextState* context)
      : Handle(std::move(impl)), context_(context) {}

  std::string address() const { return impl_->address(); }  // "[::]:7471", with the real port
  int port() const;
  int fd() const { return impl_->fd(); }  // readable while requests wait; do not read it

  // DeadlineExceeded after `timeout`.
  absl::StatusOr<ConnectionRequest> Next(absl::Duration timeout = absl::InfiniteDuration());
  // A request that is not open if none waits.
  ConnectionRequest TryNext();
  ListenerCounters counters() const { return impl_->counters(); }

 private:
  ContextState* context_ = nullptr;
};

// What an accepting peer answered.
struct Accepted {
  std::string private_data = {};
};

// A way to a peer, on a device that reaches it. Serves any number of connections.
class Path : public Handle<provider::Path> {
 public:
  Path() = default;
  Path(std::unique_ptr<provider::Path> impl, Device* device, provider::Context* context)
      : Handle(std::move(impl)), device_(device), context_(context) {}

  Device& device() const { return *device_; }
  const ConnectionInfo& info() const { return impl_->info(); }

  // Blocks until the peer has accepted. Aborted: it rejected; the message ends in its private data.
  // Unavailable: nobody listens, no route, the peer left. DeadlineExceeded: no answer in time.
  // FailedPrecondition: the queue pair is not in INIT, or the peer lacks what is required.
  // The outcome is also an event.
  absl::StatusOr<Accepted> Connect(QueuePair& qp, const ConnectParameters& parameters = {});
  // Returns before there is an answer; the outcome is an event of `qp`: kEstablished, kRejected or
  // kUnreachable. On an RDMA device that selection chose it takes a round trip to the peer's
  // listener first, which opens a port for this connection.
  absl::Status StartConnect(QueuePair& qp, const ConnectParameters& parameters = {}) {
    return impl_->Connect(*qp.impl(), parameters);
  }

 private:
  Device* device_ = nullptr;
  provider::Context* context_ = nullptr;
};

}  // namespace verbena
