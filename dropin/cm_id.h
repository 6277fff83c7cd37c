// SPDX-License-Identifier: Apache-2.0
// Identifiers of rdma_cm: a socket's counterpart. Threads: as rdma_cm, one at a time for calls on
// an id; what comes from the service is guarded by ManagerMutex().
#pragma once

#include <rdma/rdma_cma.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dropin/acknowledged.h"
#include "dropin/cm_channel.h"
#include "dropin/cm_state.h"
#include "dropin/context.h"
#include "dropin/queue_pair.h"
#include "dropin/sidr.h"
#include "transport/address.h"
#include "transport/provider.h"

namespace verbena::dropin {

class ConnectionId final : public rdma_cm_id {
 public:
  static ConnectionId* Of(rdma_cm_id* id) { return static_cast<ConnectionId*>(id); }

  // `channel`: null: calls on it wait for their event (rdma_create_id(3)).
  ConnectionId(Process* process, rdma_event_channel* channel, void* context, rdma_port_space ps);
  ~ConnectionId();

  // cm_address.cc. All: 0 or an errno.
  int Bind(const sockaddr* address);
  int Resolve(const sockaddr* source, const sockaddr* destination);
  int ResolveRoute();
  int Acquire(const provider::Address& local);  // the device that has it
  void SetAddresses(const provider::Address& local, const provider::Address& peer);

  // cm_connect.cc
  int Listen(int backlog);
  int Connect(const rdma_conn_param* parameters);
  int Accept(const rdma_conn_param* parameters);
  int Reject(const void* data, uint8_t length);
  int Disconnect();
  void StopListening();
  void TakeRequests();  // on the service, with ManagerMutex()
  void OnEvent(const Event& event);
  void TryAgain();  // on the service

  // cm_datagrams.cc: ids of RDMA_PS_UDP
  bool of_datagrams() const { return ps == RDMA_PS_UDP; }
  int ListenDatagrams();
  int ConnectDatagrams(const rdma_conn_param* parameters);
  int AcceptDatagrams(const rdma_conn_param* parameters);
  int RejectDatagrams(const void* data, uint8_t length);
  int JoinMulticast(const sockaddr* group, void* whose);
  int LeaveMulticast(const sockaddr* group);

  // cm_id.cc
  int Migrate(rdma_event_channel* to);
  int Destroy();
  // Waits for the outcome of a call, if nobody else will.
  int Complete(rdma_cm_event_type expected);
  void Push(rdma_cm_event_type type, int status, std::string private_data = {});
  int SetOption(int level, int name, const void* value, size_t length);
  bool waits() const { return own_channel_ != nullptr; }  // for the events of its calls

  // cm_endpoint.cc
  int CreateQueuePair(ibv_pd* pd, ibv_qp_init_attr* attr);
  int CreateQueuePair(ibv_qp_init_attr_ex* attr);
  void DestroyQueuePair();
  int DescribeQueuePair(ibv_qp_attr* attr, int* mask) const;
  int CreateSharedQueue(ibv_pd* pd, ibv_srq_init_attr* attr);
  void DestroySharedQueue();
  int GetRequest(rdma_cm_id** id);
  void KeepForRequests(ibv_pd* pd, const ibv_qp_init_attr* attr);

  bool bound() const { return route.addr.src_addr.sa_family != AF_UNSPEC; }
  bool inherited() const { return process_->inherited(); }
  Acknowledged& events() { return events_; }
  void ForgetQueuePair() { managed_ = nullptr; }  // the program has destroyed it

 private:
  void Attach(QueuePair* qp);
  absl::Status StartConnect();
  void Detach();
  QueuePair* FindQueuePair(const rdma_conn_param* parameters);
  void ForgetEvent();
  void TakeCaller(const SidrCaller& caller, const SidrMessage& request);
  void Answered(const SidrMessage* answer, int error);
  int AnswerCaller(SidrKind kind, uint32_t qp_number, const std::string& data);
  void PushDatagrams(CmEvent* event, const ibv_gid& gid, uint32_t qp_number, uint32_t qkey);
  void StopDatagrams();
  void TakeRequests(provider::Listener* listener);
  std::vector<provider::Address> WhereToListen() const;

  Process* const process_;
  Acknowledged events_;
  std::unique_ptr<EventChannel> own_channel_;
  QueuePair* managed_ = nullptr;
  std::vector<std::unique_ptr<provider::Listener>> listeners_;
  bool one_family_ = false;  // RDMA_OPTION_ID_AFONLY
  std::unique_ptr<provider::ConnectionRequest> request_;
  ibv_sa_path_rec path_{};
  uint8_t traffic_class_ = 0;
  std::optional<uint8_t> timeout_;
  ConnectParameters parameters_;
  absl::Time patient_until_;  // with a peer that does not listen yet
  // With the queue pair's manager_mutex(), and so is established_.
  bool waits_to_try_ = false;     // for the service to call TryAgain
  bool given_up_ = false;         // the program has disconnected
  rdma_conn_param agreed_{};      // what ESTABLISHED tells
  bool established_ = false;      // and not yet disconnected
  bool calls_ = false;            // it has connected, not accepted
  ibv_pd* request_pd_ = nullptr;  // of an endpoint that listens
  std::optional<ibv_qp_init_attr> request_attr_;
  bool made_send_queue_ = false;
  bool made_receive_queue_ = false;
  std::unique_ptr<SidrListener> sidr_listener_;
  std::unique_ptr<SidrCall> sidr_call_;
  std::optional<SidrCaller> sidr_caller_;  // who waits for an answer
};

// The context of rdma_cm for a device, opened when it is first needed; null with errno set.
Context* ManagerContext(Device* device);
ibv_pd* ManagerDomain(Context* context);  // likewise

}  // namespace verbena::dropin
