// SPDX-License-Identifier: Apache-2.0
// The table that librdmacm.so.1 calls through.
#include "dropin/connection_manager.h"

#include "dropin/cm_channel.h"
#include "dropin/cm_id.h"
#include "dropin/errors.h"

namespace verbena::dropin {
namespace {

ConnectionId& Mine(rdma_cm_id* id) { return *ConnectionId::Of(id); }

// A call whose outcome is an event: ids that wait get it here.
int Finish(int error, rdma_cm_id* id, rdma_cm_event_type expected) {
  if (error == 0) error = Mine(id).Complete(expected);
  return FailWith(error);
}

int CreateId(rdma_event_channel* channel, rdma_cm_id** id, void* context, rdma_port_space ps) {
  if (Process::Get() == nullptr) return -1;
  if (ps != RDMA_PS_TCP && ps != RDMA_PS_IB && ps != RDMA_PS_UDP) return FailWith(EOPNOTSUPP);
  *id = new ConnectionId(channel, context, ps);
  return 0;
}

int ResolveAddress(rdma_cm_id* id, sockaddr* source, sockaddr* destination, int) {
  return Finish(Mine(id).Resolve(source, destination), id, RDMA_CM_EVENT_ADDR_RESOLVED);
}

int ResolveRoute(rdma_cm_id* id, int) {
  return Finish(Mine(id).ResolveRoute(), id, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

int Connect(rdma_cm_id* id, rdma_conn_param* p) {
  const bool datagrams = Mine(id).of_datagrams();
  return Finish(datagrams ? Mine(id).ConnectDatagrams(p) : Mine(id).Connect(p), id,
                RDMA_CM_EVENT_ESTABLISHED);
}

int Accept(rdma_cm_id* id, rdma_conn_param* p) {
  if (Mine(id).of_datagrams()) return FailWith(Mine(id).AcceptDatagrams(p));  // no event follows
  return Finish(Mine(id).Accept(p), id, RDMA_CM_EVENT_ESTABLISHED);
}

int JoinMulticast(rdma_cm_id* id, sockaddr* group, void* whose) {
  return Finish(Mine(id).JoinMulticast(group, whose), id, RDMA_CM_EVENT_MULTICAST_JOIN);
}

int Disconnect(rdma_cm_id* id) {
  return Finish(Mine(id).Disconnect(), id, RDMA_CM_EVENT_DISCONNECTED);
}

void DestroyEndpoint(rdma_cm_id* id) {
  Mine(id).DestroyQueuePair();
  Mine(id).DestroySharedQueue();
  Mine(id).Destroy();
}

int Prepare(ConnectionId& id, rdma_addrinfo* res, ibv_pd* pd, ibv_qp_init_attr* attr) {
  if (attr != nullptr) attr->qp_type = static_cast<ibv_qp_type>(res->ai_qp_type);
  if ((res->ai_flags & RAI_PASSIVE) != 0) {
    id.KeepForRequests(pd, attr);
    return id.Bind(res->ai_src_addr);
  }
  if (const int error = id.Resolve(res->ai_src_addr, res->ai_dst_addr); error != 0) return error;
  if (const int error = id.Complete(RDMA_CM_EVENT_ADDR_RESOLVED); error != 0) return error;
  if (const int error = id.ResolveRoute(); error != 0) return error;
  if (const int error = id.Complete(RDMA_CM_EVENT_ROUTE_RESOLVED); error != 0) return error;
  return attr == nullptr ? 0 : id.CreateQueuePair(pd, attr);
}

int CreateEndpoint(rdma_cm_id** id, rdma_addrinfo* res, ibv_pd* pd, ibv_qp_init_attr* attr) {
  if (CreateId(nullptr, id, nullptr, static_cast<rdma_port_space>(res->ai_port_space)) != 0) {
    return -1;
  }
  const int error = Prepare(Mine(*id), res, pd, attr);
  if (error != 0) DestroyEndpoint(*id);
  return FailWith(error);
}

ibv_context** GetDevices(int* count) {
  const std::vector<Device*>& all = Device::All();
  auto** const list = static_cast<ibv_context**>(calloc(all.size() + 1, sizeof(ibv_context*)));
  if (list == nullptr) return Fail<ibv_context*>(ENOMEM);
  int n = 0;
  for (Device* each : all) {
    if (Context* const opened = ManagerContext(each)) list[n++] = &opened->context;
  }
  if (count != nullptr) *count = n;
  return list;
}

constexpr ManagerTable kTable = {
    .create_event_channel = CreateEventChannel,
    .destroy_event_channel = DestroyEventChannel,
    .get_cm_event = GetCmEvent,
    .ack_cm_event = AckCmEvent,
    .create_id = CreateId,
    .destroy_id = [](rdma_cm_id* id) { return FailWith(Mine(id).Destroy()); },
    .migrate_id = [](rdma_cm_id* id,
                     rdma_event_channel* to) { return FailWith(Mine(id).Migrate(to)); },
    .bind_addr = [](rdma_cm_id* id, sockaddr* to) { return FailWith(Mine(id).Bind(to)); },
    .resolve_addr = ResolveAddress,
    .resolve_route = ResolveRoute,
    .listen =
        [](rdma_cm_id* id, int backlog) {
          return FailWith(Mine(id).of_datagrams() ? Mine(id).ListenDatagrams()
                                                  : Mine(id).Listen(backlog));
        },
    .connect = Connect,
    .accept = Accept,
    .reject =
        [](rdma_cm_id* id, const void* data, uint8_t length) {
          return FailWith(Mine(id).of_datagrams() ? Mine(id).RejectDatagrams(data, length)
                                                  : Mine(id).Reject(data, length));
        },
    .disconnect = Disconnect,
    .get_request = [](rdma_cm_id* listen,
                      rdma_cm_id** id) { return FailWith(Mine(listen).GetRequest(id)); },
    .set_option =
        [](rdma_cm_id* id, int level, int name, void* value, size_t length) {
          return FailWith(Mine(id).SetOption(level, name, value, length));
        },
    .create_qp =
        [](rdma_cm_id* id, ibv_pd* pd, ibv_qp_init_attr* attr) {
          return FailWith(Mine(id).CreateQueuePair(pd, attr));
        },
    .destroy_qp = [](rdma_cm_id* id) { Mine(id).DestroyQueuePair(); },
    .create_srq =
        [](rdma_cm_id* id, ibv_pd* pd, ibv_srq_init_attr* attr) {
          return FailWith(Mine(id).CreateSharedQueue(pd, attr));
        },
    .destroy_srq = [](rdma_cm_id* id) { Mine(id).DestroySharedQueue(); },
    .create_ep = CreateEndpoint,
    .destroy_ep = DestroyEndpoint,
    .get_devices = GetDevices,
    .join_multicast = JoinMulticast,
    .leave_multicast = [](rdma_cm_id* id,
                          sockaddr* group) { return FailWith(Mine(id).LeaveMulticast(group)); },
};

}  // namespace

ibv_context* ConnectionManager::Door(ibv_device*, int version) {
  if (version != ManagerTable::kVersion) return nullptr;
  return const_cast<ibv_context*>(reinterpret_cast<const ibv_context*>(&kTable));
}

}  // namespace verbena::dropin
