// SPDX-License-Identifier: Apache-2.0
// rdma_cm(7) over the fallback's listeners and connects. librdmacm.so.1 calls it through a table
// that it gets with the device list.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "transport/events.h"

namespace verbena::dropin {

class ConnectionId;

// Of librdmacm's functions all that need the engine. The rest is librdmacm.so.1's own.
struct ManagerTable {
  static constexpr int kVersion = 1;

  decltype(&::rdma_create_event_channel) create_event_channel;
  decltype(&::rdma_destroy_event_channel) destroy_event_channel;
  decltype(&::rdma_get_cm_event) get_cm_event;
  decltype(&::rdma_ack_cm_event) ack_cm_event;
  decltype(&::rdma_create_id) create_id;
  decltype(&::rdma_destroy_id) destroy_id;
  decltype(&::rdma_migrate_id) migrate_id;
  decltype(&::rdma_bind_addr) bind_addr;
  decltype(&::rdma_resolve_addr) resolve_addr;
  decltype(&::rdma_resolve_route) resolve_route;
  decltype(&::rdma_listen) listen;
  decltype(&::rdma_connect) connect;
  decltype(&::rdma_accept) accept;
  decltype(&::rdma_reject) reject;
  decltype(&::rdma_disconnect) disconnect;
  decltype(&::rdma_get_request) get_request;
  decltype(&::rdma_set_option) set_option;
  decltype(&::rdma_create_qp) create_qp;
  decltype(&::rdma_create_qp_ex) create_qp_ex;
  decltype(&::rdma_destroy_qp) destroy_qp;
  int (*create_srq)(rdma_cm_id*, ibv_pd*, ibv_srq_init_attr*);
  void (*destroy_srq)(rdma_cm_id*);
  decltype(&::rdma_create_ep) create_ep;
  decltype(&::rdma_destroy_ep) destroy_ep;
  decltype(&::rdma_get_devices) get_devices;
  decltype(&::rdma_init_qp_attr) init_qp_attr;
  decltype(&::rdma_join_multicast) join_multicast;
  decltype(&::rdma_leave_multicast) leave_multicast;
};

class ConnectionManager {
 public:
  // ibv_device::_ops._dummy1 of our devices, for the other libraries: the table, if `what` is its
  // version; DeviceTree::Root(), if it is DeviceTree::kDoor.
  static ibv_context* Door(ibv_device* device, int what);

  // A listener may have a request, or a connect is to be tried again.
  static void OnTimer();
  // Of the queue pair of `id`, whose manager_mutex() is held.
  static void Tell(ConnectionId* id, const Event& event);
  static void Forget(ConnectionId* id);
};

}  // namespace verbena::dropin
