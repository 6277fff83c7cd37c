// SPDX-License-Identifier: Apache-2.0
// What goes on in a context though nobody calls: one thread that takes connection events and
// asynchronous events from the kernel, and the one place where other threads wait.
//
// Its mutex guards the life of connections and queue pairs. It is held across control-path calls to
// the kernel, never on the hot path. Whoever holds it may not take a completion queue's.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "verbs/iwarp_domain.h"
#include "verbs/library.h"

namespace verbena::verbs {

// A copy of rdma_cm_event, which is acknowledged before anybody handles it, so that the handler may
// destroy the identifier (rdma_destroy_id(3) waits for acknowledgements).
struct CmEvent {
  rdma_cm_event_type type = RDMA_CM_EVENT_ADDR_RESOLVED;
  rdma_cm_id* id = nullptr;
  int status = 0;
  std::string private_data = {};
  Confirmation confirmation = {};  // iWARP: was behind the private data
  uint8_t responder_resources = 0;
  uint8_t initiator_depth = 0;
};

// Who owns an rdma_cm_id: its `context`. Called by the service thread, with the mutex held.
class CmHandler {
 public:
  virtual ~CmHandler() = default;
  virtual void OnCm(const CmEvent& event) = 0;
};

// Who wants the service thread to do something. Called by it, with the mutex held.
class Attended {
 public:
  virtual ~Attended() = default;
  virtual void OnAttention() {}
  virtual void OnDeadline() {}
};

// A non-blocking descriptor of asynchronous events (a device's).
class EventSource {
 public:
  virtual ~EventSource() = default;
  virtual int event_fd() const = 0;
  virtual void OnEvents() = 0;
};

class Service {
 public:
  // ResourceExhausted: no descriptor. Unavailable: no /dev/infiniband/rdma_cm, with the remedy.
  static absl::StatusOr<std::unique_ptr<Service>> Create();
  ~Service();

  absl::Status Start();  // ResourceExhausted: no thread
  void Stop();           // joins the thread

  std::mutex& mutex() { return mutex_; }
  bool on_its_thread() const;  // which holds the mutex whenever it calls anybody
  rdma_event_channel* channel() const { return channel_; }
  uint64_t wakeups() const { return wakeups_.load(std::memory_order_relaxed); }

  // With the mutex held. Attend: OnAttention soon. SetDeadline: OnDeadline then; infinite: never.
  void Attend(Attended* who);
  void SetDeadline(Attended* who, absl::Duration from_now);
  void Forget(Attended* who);

  void AddSource(EventSource* source);
  void RemoveSource(EventSource* source);
  // Completion channels: whoever waits is woken when one of them becomes readable.
  void AddChannel(int fd);
  void RemoveChannel(int fd);

  // Something that others may wait for has changed. Cheap if nobody waits.
  void Changed();
  bool anybody_waits() const { return waiters_.load(std::memory_order_seq_cst) > 0; }
  // Blocks until `ready` or `timeout`; the answer is ready()'s. Woken by Changed and by `fd`, or by
  // every channel if it is negative.
  bool Await(absl::FunctionRef<bool()> ready, absl::Duration timeout, int fd = -1);

 private:
  Service() = default;
  void Run();
  void TakeCmEvents();
  void MeetDeadlines();
  int Patience();  // ms until the next deadline; -1: none
  void Wake();

  std::mutex mutex_;
  rdma_event_channel* channel_ = nullptr;
  int epoll_ = -1;     // of the service thread
  int wake_ = -1;      // eventfd: to the service thread
  int changed_ = -1;   // eventfd, never read: waiters see its edges
  int channels_ = -1;  // epoll over all completion channels
  std::atomic<int> waiters_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> wakeups_{0};
  absl::flat_hash_set<Attended*> attended_;
  absl::flat_hash_map<Attended*, absl::Duration> deadlines_;  // on the steady clock
  pthread_t thread_{};
  bool started_ = false;
};

// Not the wall clock: setting it must not lengthen a wait.
absl::Duration SteadyNow();
int Milliseconds(absl::Duration left);  // as poll(2) and epoll_wait(2) want it, rounded up

}  // namespace verbena::verbs
