// SPDX-License-Identifier: Apache-2.0
// The table that librdmacm.so.1 calls through.
#include "dropin/connection_manager.h"

#include "dropin/cm_channel.h"
#include "dropin/cm_id.h"
#include "dropin/device_tree.h"
#include "dropin/errors.h"

namespace verbena::dropin {
namespace {

ConnectionId& Mine(rdma_cm_id* id) { return *ConnectionId::Of(id); }

// An id that a child inherits is its parent's, which goes on with it.
template <typename Call>
int On(rdma_cm_id* id, Call call) {
  return FailWith(Mine(id).inherited() ? EIO : call(Mine(id)));
}

// A call whose outcome is an event: ids that wait get it here.
template <typename Call>
int On(rdma_cm_id* id, rdma_cm_event_type expected, Call call) {
  return On(id, [&](ConnectionId& mine) {
    const int error = call(mine);
    return error != 0 ? error : mine.Complete(expected);
  });
}

int CreateId(rdma_event_channel* channel, rdma_cm_id** id, void* context, rdma_port_space ps) {
  Process* const process = Process::Get();
  if (process == nullptr) return -1;
  if (channel != nullptr && EventChannel::Of(channel)->inherited()) return FailWith(EIO);
  if (ps != RDMA_PS_TCP && ps != RDMA_PS_IB && ps != RDMA_PS_UDP) return FailWith(EOPNOTSUPP);
  auto* const made = new ConnectionId(process, channel, context, ps);
  if (made->channel->fd < 0) {  // it has one of its own, and no descriptor was left
    delete made;
    return FailWith(ENOMEM);
  }
  *id = made;
  return 0;
}

int ResolveAddress(rdma_cm_id* id, sockaddr* source, sockaddr* destination, int) {
  return On(id, RDMA_CM_EVENT_ADDR_RESOLVED,
            [&](ConnectionId& mine) { return mine.Resolve(source, destination); });
}

int ResolveRoute(rdma_cm_id* id, int) {
  return On(id, RDMA_CM_EVENT_ROUTE_RESOLVED,
            [](ConnectionId& mine) { return mine.ResolveRoute(); });
}

int Connect(rdma_cm_id* id, rdma_conn_param* p) {
  return On(id, RDMA_CM_EVENT_ESTABLISHED, [&](ConnectionId& mine) {
    return mine.of_datagrams() ? mine.ConnectDatagrams(p) : mine.Connect(p);
  });
}

int Accept(rdma_cm_id* id, rdma_conn_param* p) {
  if (Mine(id).of_datagrams()) {  // no event follows
    return On(id, [&](ConnectionId& mine) { return mine.AcceptDatagrams(p); });
  }
  return On(id, RDMA_CM_EVENT_ESTABLISHED, [&](ConnectionId& mine) { return mine.Accept(p); });
}

int JoinMulticast(rdma_cm_id* id, sockaddr* group, void* whose) {
  return On(id, RDMA_CM_EVENT_MULTICAST_JOIN,
            [&](ConnectionId& mine) { return mine.JoinMulticast(group, whose); });
}

int Disconnect(rdma_cm_id* id) {
  return On(id, RDMA_CM_EVENT_DISCONNECTED, [](ConnectionId& mine) { return mine.Disconnect(); });
}

void DestroyEndpoint(rdma_cm_id* id) {
  if (Mine(id).inherited()) return;
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
    .destroy_id =
        [](rdma_cm_id* id) { return On(id, [](ConnectionId& mine) { return mine.Destroy(); }); },
    .migrate_id =
        [](rdma_cm_id* id, rdma_event_channel* to) {
          return On(id, [&](ConnectionId& mine) { return mine.Migrate(to); });
        },
    .bind_addr =
        [](rdma_cm_id* id, sockaddr* to) {
          return On(id, [&](ConnectionId& mine) { return mine.bound() ? EINVAL : mine.Bind(to); });
        },
    .resolve_addr = ResolveAddress,
    .resolve_route = ResolveRoute,
    .listen =
        [](rdma_cm_id* id, int backlog) {
          return On(id, [&](ConnectionId& mine) {
            return mine.of_datagrams() ? mine.ListenDatagrams() : mine.Listen(backlog);
          });
        },
    .connect = Connect,
    .accept = Accept,
    .reject =
        [](rdma_cm_id* id, const void* data, uint8_t length) {
          return On(id, [&](ConnectionId& mine) {
            return mine.of_datagrams() ? mine.RejectDatagrams(data, length)
                                       : mine.Reject(data, length);
          });
        },
    .disconnect = Disconnect,
    .get_request =
        [](rdma_cm_id* listen, rdma_cm_id** id) {
          return On(listen, [&](ConnectionId& mine) { return mine.GetRequest(id); });
        },
    .set_option =
        [](rdma_cm_id* id, int level, int name, void* value, size_t length) {
          return On(id,
                    [&](ConnectionId& mine) { return mine.SetOption(level, name, value, length); });
        },
    .create_qp =
        [](rdma_cm_id* id, ibv_pd* pd, ibv_qp_init_attr* attr) {
          return On(id, [&](ConnectionId& mine) { return mine.CreateQueuePair(pd, attr); });
        },
    .create_qp_ex =
        [](rdma_cm_id* id, ibv_qp_init_attr_ex* attr) {
          return On(id, [&](ConnectionId& mine) { return mine.CreateQueuePair(attr); });
        },
    .destroy_qp =
        [](rdma_cm_id* id) {
          if (!Mine(id).inherited()) Mine(id).DestroyQueuePair();
        },
    .create_srq =
        [](rdma_cm_id* id, ibv_pd* pd, ibv_srq_init_attr* attr) {
          return On(id, [&](ConnectionId& mine) { return mine.CreateSharedQueue(pd, attr); });
        },
    .destroy_srq =
        [](rdma_cm_id* id) {
          if (!Mine(id).inherited()) Mine(id).DestroySharedQueue();
        },
    .create_ep = CreateEndpoint,
    .destroy_ep = DestroyEndpoint,
    .get_devices = GetDevices,
    .init_qp_attr =
        [](rdma_cm_id* id, ibv_qp_attr* attr, int* mask) {
          return On(id, [&](ConnectionId& mine) { return mine.DescribeQueuePair(attr, mask); });
        },
    .join_multicast = JoinMulticast,
    .leave_multicast =
        [](rdma_cm_id* id, sockaddr* group) {
          return On(id, [&](ConnectionId& mine) { return mine.LeaveMulticast(group); });
        },
};

}  // namespace

ibv_context* ConnectionManager::Door(ibv_device*, int what) {
  if (what == DeviceTree::kDoor) {
    return const_cast<ibv_context*>(reinterpret_cast<const ibv_context*>(DeviceTree::Root()));
  }
  if (what != ManagerTable::kVersion) return nullptr;
  return const_cast<ibv_context*>(reinterpret_cast<const ibv_context*>(&kTable));
}

}  // namespace verbena::dropin
