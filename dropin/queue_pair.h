// SPDX-License-Identifier: Apache-2.0
// Queue pairs: connected ones, reliable or not, and those of datagrams (datagrams.cc has what is
// theirs alone). Begins with an ibv_qp, as an ibv_qp_ex does.
#pragma once

#include <infiniband/verbs.h>

#include <memory>
#include <mutex>

#include "dropin/acknowledged.h"
#include "dropin/process.h"
#include "dropin/work_requests.h"
#include "fallback/datagram_queue_pair.h"
#include "fallback/queue_pair.h"

namespace verbena::dropin {

class ConnectionId;

class QueuePair final : public ibv_qp_ex {
 public:
  static QueuePair* Of(ibv_qp* qp) {
    return static_cast<QueuePair*>(reinterpret_cast<ibv_qp_ex*>(qp));
  }
  // What rdma_init_qp_attr(3) gives as the peer's number: the connection manager connects, and the
  // program only says that it knows.
  static constexpr uint32_t kOfManager = 0;
  // Null, with errno set.
  static ibv_qp* Create(ibv_pd* pd, ibv_qp_init_attr* attr);
  static ibv_qp* CreateExtended(ibv_context* context, ibv_qp_init_attr_ex* attr);

  int Modify(const ibv_qp_attr& attr, int mask);
  int Query(ibv_qp_attr* attr, ibv_qp_init_attr* init);
  int Destroy();

  fallback::QueuePair& queue_pair() { return *fast_; }                   // not of datagrams
  fallback::DatagramQueuePair* datagrams() const { return datagrams_; }  // null: not of datagrams
  WorkRequests& requests() { return requests_; }
  uint32_t number() const { return qp_base.qp_num; }
  ibv_qp* qp() { return &qp_base; }
  Acknowledged& events() { return events_; }
  Process& process() const { return *process_; }

  // Its connection manager's end, which is told of events, or null. With manager_mutex().
  std::recursive_mutex& manager_mutex() { return manager_mutex_; }
  ConnectionId* manager() const { return manager_; }
  void SetManager(ConnectionId* id) { manager_ = id; }
  // What a connection manager does to states: as Modify, but INIT → RTS at once.
  absl::Status MoveToInit();
  void Connected() { qp_base.state = IBV_QPS_RTS; }

  // From the provider. Any thread; must not call it.
  void OnEvent(Event event);

 private:
  explicit QueuePair(Process* process) : ibv_qp_ex{}, process_(process) {}
  static QueuePair* Make(ibv_pd* pd, const ibv_qp_init_attr& attr, int* error);
  void Expect();
  absl::Status StartDatagrams();
  int ModifyDatagrams(const ibv_qp_attr& attr, int mask);
  int MoveTo(ibv_qp_state state, const ibv_qp_attr& attr, int mask);
  int MeetPeer(const ibv_qp_attr& attr, int mask);
  int Apply(const QpModify& change);
  void Remember(const ibv_qp_attr& attr, int mask);

  Process* const process_;
  std::unique_ptr<provider::QueuePair> owned_;
  // One of the two, by its own type.
  fallback::QueuePair* fast_ = nullptr;
  fallback::DatagramQueuePair* datagrams_ = nullptr;
  ibv_qp_attr attr_{};  // as it was set
  ibv_qp_init_attr init_{};
  WorkRequests requests_;
  Acknowledged events_;
  std::recursive_mutex manager_mutex_;  // a connect that is tried again may tell of its end at once
  ConnectionId* manager_ = nullptr;
  bool moved_by_hand_ = false;  // under a connection manager
};

}  // namespace verbena::dropin
