// SPDX-License-Identifier: Apache-2.0
// Connection and asynchronous events: rdma_get_cm_event(3) and ibv_get_async_event(3) in one queue.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/counters.h"

namespace verbena {

namespace provider {
class Context;
}

enum class EventType : uint8_t {
  kEstablished,     // the queue pair is connected; private_data: the acceptor's (active end)
  kRejected,        // private_data: the reason that the peer gave
  kUnreachable,     // status says why
  kDisconnected,    // either end disconnected, failed or vanished; the queue pair is in ERR
  kQpFatal,         // e.g. its completion queue overflowed
  kQpAccessError,   // the peer broke a key, bounds or access rule
  kQpRequestError,  // the peer sent something invalid
  kCommunicationEstablished,  // data arrived before the connection was reported established
  kSendQueueDrained,          // SQD reached
  kLastWqeReached,            // a dying queue pair takes nothing more from its shared receive queue
  kSrqLimitReached,
  kCqError,  // overflow
  kDeviceFatal,
};
const char* EventTypeName(EventType type);

// Plain value. `context` is the user pointer that the object was made with; no event of an object
// is delivered after that object's Close() returned.
struct Event {
  EventType type = EventType::kEstablished;
  void* context = nullptr;
  uint32_t qp_number = 0;  // 0: not about a queue pair
  std::string private_data = {};
  absl::Status status = {};  // why, for the kinds that have a cause
};

namespace provider {

// Whom a provider reports to. Any thread; none of these blocks or calls the provider, but OnTimer.
class Host {
 public:
  virtual ~Host() = default;
  virtual void Push(const void* object, Event event) = 0;
  virtual void Forget(const void* object) = 0;  // drops what `object` still has queued
  virtual void Changed() {}                     // a listener has a request
  virtual void OnTimer() {}                     // see Context::SetTimer
};

}  // namespace provider

// Part of a Context and dies with it. Any thread; several waiting threads share the events.
class EventQueue final : public provider::Host {
 public:
  explicit EventQueue(provider::Context* context);
  ~EventQueue() override;
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  // Readable (level-triggered) while events wait. Owned by the queue: poll it, do not read it.
  int fd() const;

  std::optional<Event> TryNext();
  // DeadlineExceeded after `timeout`.
  absl::StatusOr<Event> Next(absl::Duration timeout = absl::InfiniteDuration());

  EventCounters counters() const;

  // For providers. Push: any thread, never blocks. Forget: drops what `object` still has queued.
  void Push(const void* object, Event event) override;
  void Forget(const void* object) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace verbena
