// SPDX-License-Identifier: Apache-2.0
// Where the peers of queue pairs that connect out of band come in: one hidden listener of a device,
// and the callers that wait for their queue pair (docs/decisions/0015-out-of-band.md). Any thread.
// Its mutex is taken by owners of queue pairs, and may be held when the hub is called.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "fallback/engine/handshake.h"
#include "fallback/engine/token.h"
#include "fallback/hub.h"
#include "transport/log.h"

namespace verbena::fallback {

class Device;
class Listener;
class QueuePair;

struct Caller {
  io::Socket socket = io::kNoSocket;
  engine::PeerRequest request;
  engine::Call call;
  Nanos until = 0;
};

class Meeting final : public Watched {
 public:
  explicit Meeting(Device* device);
  ~Meeting() override;

  // Its port; opens the listener the first time. Unavailable, ResourceExhausted: as Listen.
  absl::StatusOr<uint16_t> Open();
  absl::StatusOr<uint16_t> OpenAnother();  // a port besides, for the same queue pairs
  void Close();                            // callers are refused

  // From when the address is given out to when it is void: callers of `place` are `qp`'s.
  void Expect(const engine::Place& place, QueuePair* qp);
  void Forget(const engine::Place& place);
  // The one that shows `call`, if it has come.
  std::optional<Caller> Take(const engine::Place& place, const engine::Token& call);
  bool Has(const engine::Place& place, const engine::Token& call) const;
  // The queue pair of `place` is connected: who calls now, or has, is told so under `nonce`.
  void Taken(const engine::Place& place, const Nonce& nonce);

  // From the listener, on the service.
  void Arrived(io::Socket socket, engine::PeerRequest request);

  void OnReady(bool, bool) override {}
  void OnDeadline() override;  // some have waited long enough

 private:
  struct Expected {
    QueuePair* qp = nullptr;
    std::optional<Nonce> taken;
  };
  // `proof`: that the refusal comes from a holder of the address, and is final.
  void Refuse(Caller& caller, const std::string& text, const std::string& proof = "");
  void RefuseTaken(Caller& caller, const Nonce& nonce);

  Device* const device_;
  mutable std::mutex mutex_;
  absl::StatusOr<uint16_t> AddListener();  // with mutex_
  std::vector<std::unique_ptr<Listener>> listeners_;
  absl::flat_hash_map<std::string, Expected> expected_;  // by place
  std::deque<Caller> waiting_;                           // oldest first
  LogLimit refusals_;
};

}  // namespace verbena::fallback
