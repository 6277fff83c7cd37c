// SPDX-License-Identifier: Apache-2.0
// Queue pairs: connected ones, reliable or not, both ends of one type, and those of unreliable
// datagrams (QpType::kUd, which has no peer: what connects and disconnects answers
// InvalidArgument). Semantics: docs/semantics.md, InfiniBand's on every provider. Any thread;
// requests of one call stay together and in order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "transport/capabilities.h"
#include "transport/counters.h"
#include "transport/handle.h"
#include "transport/options.h"
#include "transport/provider.h"
#include "transport/qp_state.h"
#include "transport/work_request.h"

namespace verbena {

class QueuePair : public Handle<provider::QueuePair> {
 public:
  QueuePair() = default;
  QueuePair(std::unique_ptr<provider::QueuePair> impl, provider::Context* context)
      : Handle(std::move(impl)), context_(context) {}

  // One doorbell for all of them. Never blocks, and allocates only where a request has to wait in
  // SQD or for reads on an iWARP device. A success completion means: applied at the peer
  // (capabilities().remote_completion). Completions come in posting order.
  PostResult PostSend(std::span<const SendWr> requests) { return impl_->PostSend(requests); }
  PostResult PostSend(const SendWr& request) { return impl_->PostSend({&request, 1}); }
  PostResult PostReceive(std::span<const ReceiveWr> requests) {
    return impl_->PostReceive(requests);
  }
  PostResult PostReceive(const ReceiveWr& request) { return impl_->PostReceive({&request, 1}); }

  // FailedPrecondition: that state cannot follow this one, or needs a connection.
  // InvalidArgument: a value out of range, or one that this transition does not take.
  absl::Status Modify(const QpModify& change) { return impl_->Modify(change); }
  QpAttributes Query() const { return impl_->Query(); }
  QpState state() const { return impl_->Query().state; }
  uint32_t number() const { return impl_->Query().qp_number; }
  Capabilities capabilities() const { return impl_->capabilities(); }

  // Out of band, by exchange of addresses over a channel of the program's own, in any order. At
  // most kMaxContact bytes, opaque, good for one connection: RESET ends it. Unimplemented: not on
  // this device (capabilities().out_of_band). InvalidArgument: VERBENA_GID_INDEX names no GID of
  // the port.
  absl::StatusOr<std::string> address();
  // Both ends connect to the other's address. Blocks until the peer has done so too, and refuses
  // as Path::Connect; without out_of_band_handshake it waits for nobody. There is no private data.
  // InvalidArgument: not an address, changed on the way, or this queue pair's own.
  // FailedPrecondition: the own address was not taken before, or the peer is on another kind of
  // device; see Context::Choose. Aborted: the peer has connected to somebody else.
  absl::Status Connect(const std::string& peer_address, const ConnectParameters& parameters = {});
  // Returns before there is an answer; the outcome is an event: kEstablished or kUnreachable, or
  // kRejected.
  absl::Status StartConnect(const std::string& peer_address,
                            const ConnectParameters& parameters = {});

  // QpType::kUd: from now on datagrams that are sent to `group` ("224.1.2.3", "ff0e::1") and to
  // kMulticastQpNumber come here too, if their Q_Key is the queue pair's. Detached by RESET.
  absl::Status AttachMulticast(const std::string& group) { return impl_->AttachMulticast(group); }
  absl::Status DetachMulticast(const std::string& group) { return impl_->DetachMulticast(group); }

  // Ends the connection: ERR at both ends, what is outstanding is flushed, kDisconnected at both.
  absl::Status Disconnect() { return impl_->Disconnect(); }
  // DeadlineExceeded after `timeout`; OK once the queue pair has left the connected states.
  absl::Status WaitUntilDisconnected(absl::Duration timeout = absl::InfiniteDuration());
  // Waits until every posted send is complete and acknowledged; receives are untouched.
  // DeadlineExceeded after `timeout`; the cause if the queue pair fails meanwhile.
  absl::Status Drain(absl::Duration timeout);

  // Why the queue pair is in ERR, as the peer or this end put it.
  absl::Status cause() const { return impl_->cause(); }
  ConnectionInfo connection() const { return impl_->connection(); }
  QpCounters counters() const { return impl_->counters(); }

 private:
  provider::Context* context_ = nullptr;
};

}  // namespace verbena
