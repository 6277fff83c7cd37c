// SPDX-License-Identifier: Apache-2.0
// librdmacm.so.1: calls libibverbs.so.1, in which the engine is; and what needs none.
#include <netdb.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "dropin/connection_manager.h"

namespace {

using verbena::dropin::ManagerTable;

// Null: this libibverbs.so.1 is another one, or the machine has no address at all.
const ManagerTable* Find() {
  int count = 0;
  ibv_device** const list = ibv_get_device_list(&count);
  const ManagerTable* table = nullptr;
  if (list != nullptr && count > 0 && list[0]->_ops._dummy1 != nullptr) {
    table = reinterpret_cast<const ManagerTable*>(
        list[0]->_ops._dummy1(list[0], ManagerTable::kVersion));
  }
  if (list != nullptr) ibv_free_device_list(list);
  return table;
}

const ManagerTable* Table() {
  static const ManagerTable* const table = Find();
  if (table == nullptr) errno = ENODEV;
  return table;
}

int NotHere() {
  errno = EOPNOTSUPP;
  return -1;
}

uint16_t PortOf(const sockaddr_storage& address) {
  switch (address.ss_family) {
    case AF_INET:
      return reinterpret_cast<const sockaddr_in&>(address).sin_port;
    case AF_INET6:
      return reinterpret_cast<const sockaddr_in6&>(address).sin6_port;
    default:
      return 0;
  }
}

sockaddr* CopyOf(const sockaddr* from, socklen_t length) {
  auto* const to = static_cast<sockaddr*>(std::calloc(1, sizeof(sockaddr_storage)));
  if (to != nullptr) std::memcpy(to, from, length);
  return to;
}

}  // namespace

// Forwards a call; `failed` if there is no table.
#define CALL(name, failed, ...) (Table() != nullptr ? Table()->name(__VA_ARGS__) : (failed))

extern "C" {

rdma_event_channel* rdma_create_event_channel(void) { return CALL(create_event_channel, nullptr); }
void rdma_destroy_event_channel(rdma_event_channel* c) {
  if (Table() != nullptr) Table()->destroy_event_channel(c);
}
int rdma_get_cm_event(rdma_event_channel* c, rdma_cm_event** e) {
  return CALL(get_cm_event, -1, c, e);
}
int rdma_ack_cm_event(rdma_cm_event* e) { return CALL(ack_cm_event, -1, e); }
int rdma_create_id(rdma_event_channel* c, rdma_cm_id** id, void* context, rdma_port_space ps) {
  return CALL(create_id, -1, c, id, context, ps);
}
int rdma_destroy_id(rdma_cm_id* id) { return CALL(destroy_id, -1, id); }
int rdma_migrate_id(rdma_cm_id* id, rdma_event_channel* c) { return CALL(migrate_id, -1, id, c); }
int rdma_bind_addr(rdma_cm_id* id, sockaddr* a) { return CALL(bind_addr, -1, id, a); }
int rdma_resolve_addr(rdma_cm_id* id, sockaddr* src, sockaddr* dst, int timeout_ms) {
  return CALL(resolve_addr, -1, id, src, dst, timeout_ms);
}
int rdma_resolve_route(rdma_cm_id* id, int timeout_ms) {
  return CALL(resolve_route, -1, id, timeout_ms);
}
int rdma_listen(rdma_cm_id* id, int backlog) { return CALL(listen, -1, id, backlog); }
int rdma_connect(rdma_cm_id* id, rdma_conn_param* p) { return CALL(connect, -1, id, p); }
int rdma_accept(rdma_cm_id* id, rdma_conn_param* p) { return CALL(accept, -1, id, p); }
int rdma_reject(rdma_cm_id* id, const void* data, uint8_t length) {
  return CALL(reject, -1, id, data, length);
}
int rdma_disconnect(rdma_cm_id* id) { return CALL(disconnect, -1, id); }
int rdma_get_request(rdma_cm_id* listen, rdma_cm_id** id) {
  return CALL(get_request, -1, listen, id);
}
int rdma_set_option(rdma_cm_id* id, int level, int name, void* value, size_t length) {
  return CALL(set_option, -1, id, level, name, value, length);
}
int rdma_create_qp(rdma_cm_id* id, ibv_pd* pd, ibv_qp_init_attr* attr) {
  return CALL(create_qp, -1, id, pd, attr);
}
int rdma_create_qp_ex(rdma_cm_id* id, ibv_qp_init_attr_ex* attr) {
  return CALL(create_qp_ex, -1, id, attr);
}
void rdma_destroy_qp(rdma_cm_id* id) { CALL(destroy_qp, void(), id); }
int rdma_create_srq(rdma_cm_id* id, ibv_pd* pd, ibv_srq_init_attr* attr) {
  return CALL(create_srq, -1, id, pd, attr);
}
void rdma_destroy_srq(rdma_cm_id* id) { CALL(destroy_srq, void(), id); }
int rdma_create_ep(rdma_cm_id** id, rdma_addrinfo* res, ibv_pd* pd, ibv_qp_init_attr* attr) {
  return CALL(create_ep, -1, id, res, pd, attr);
}
void rdma_destroy_ep(rdma_cm_id* id) { CALL(destroy_ep, void(), id); }
int rdma_init_qp_attr(rdma_cm_id* id, ibv_qp_attr* attr, int* mask) {
  return CALL(init_qp_attr, -1, id, attr, mask);
}
ibv_context** rdma_get_devices(int* count) { return CALL(get_devices, nullptr, count); }
void rdma_free_devices(ibv_context** list) { std::free(list); }

int rdma_create_srq_ex(rdma_cm_id* id, ibv_srq_init_attr_ex* attr) {
  if ((attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) != 0 && attr->srq_type != IBV_SRQT_BASIC) {
    return NotHere();
  }
  ibv_srq_init_attr basic{attr->srq_context, attr->attr};
  return rdma_create_srq(id, (attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) != 0 ? attr->pd : nullptr,
                         &basic);
}

// A queue pair is connected by then, or needs nothing.
int rdma_establish(rdma_cm_id*) { return 0; }
int rdma_notify(rdma_cm_id*, ibv_event_type) { return 0; }

int rdma_join_multicast(rdma_cm_id* id, sockaddr* group, void* whose) {
  return CALL(join_multicast, -1, id, group, whose);
}
// Members that only send join as any other: nobody counts them.
int rdma_join_multicast_ex(rdma_cm_id* id, rdma_cm_join_mc_attr_ex* attr, void* whose) {
  if ((attr->comp_mask & RDMA_CM_JOIN_MC_ATTR_ADDRESS) == 0) {
    errno = EINVAL;
    return -1;
  }
  return rdma_join_multicast(id, attr->addr, whose);
}
int rdma_leave_multicast(rdma_cm_id* id, sockaddr* group) {
  return CALL(leave_multicast, -1, id, group);
}
int rdma_reject_ece(rdma_cm_id* id, const void* data, uint8_t length) {
  return rdma_reject(id, data, length);
}
int rdma_set_local_ece(rdma_cm_id*, ibv_ece*) { return NotHere(); }
int rdma_get_remote_ece(rdma_cm_id*, ibv_ece*) { return NotHere(); }

__be16 rdma_get_src_port(rdma_cm_id* id) { return PortOf(id->route.addr.src_storage); }
__be16 rdma_get_dst_port(rdma_cm_id* id) { return PortOf(id->route.addr.dst_storage); }

const char* rdma_event_str(rdma_cm_event_type event) {
  constexpr std::array kNames = {"RDMA_CM_EVENT_ADDR_RESOLVED",   "RDMA_CM_EVENT_ADDR_ERROR",
                                 "RDMA_CM_EVENT_ROUTE_RESOLVED",  "RDMA_CM_EVENT_ROUTE_ERROR",
                                 "RDMA_CM_EVENT_CONNECT_REQUEST", "RDMA_CM_EVENT_CONNECT_RESPONSE",
                                 "RDMA_CM_EVENT_CONNECT_ERROR",   "RDMA_CM_EVENT_UNREACHABLE",
                                 "RDMA_CM_EVENT_REJECTED",        "RDMA_CM_EVENT_ESTABLISHED",
                                 "RDMA_CM_EVENT_DISCONNECTED",    "RDMA_CM_EVENT_DEVICE_REMOVAL",
                                 "RDMA_CM_EVENT_MULTICAST_JOIN",  "RDMA_CM_EVENT_MULTICAST_ERROR",
                                 "RDMA_CM_EVENT_ADDR_CHANGE",     "RDMA_CM_EVENT_TIMEWAIT_EXIT"};
  return event < kNames.size() ? kNames[event] : "UNKNOWN EVENT";
}

int rdma_getaddrinfo(const char* node, const char* service, const rdma_addrinfo* hints,
                     rdma_addrinfo** res) {
  const int flags = hints != nullptr ? hints->ai_flags : 0;
  const bool passive = (flags & RAI_PASSIVE) != 0;
  auto* const out = static_cast<rdma_addrinfo*>(std::calloc(1, sizeof(rdma_addrinfo)));
  if (out == nullptr) return EAI_MEMORY;
  out->ai_flags = flags;
  out->ai_qp_type = hints != nullptr && hints->ai_qp_type != 0 ? hints->ai_qp_type : IBV_QPT_RC;
  out->ai_port_space =
      hints != nullptr && hints->ai_port_space != 0 ? hints->ai_port_space : int{RDMA_PS_TCP};
  if (hints != nullptr && hints->ai_src_len > 0) {
    out->ai_src_addr = CopyOf(hints->ai_src_addr, hints->ai_src_len);
    out->ai_src_len = hints->ai_src_len;
  }
  if (hints != nullptr && hints->ai_dst_len > 0) {
    out->ai_dst_addr = CopyOf(hints->ai_dst_addr, hints->ai_dst_len);
    out->ai_dst_len = hints->ai_dst_len;
  }
  if (node != nullptr || service != nullptr) {
    addrinfo wanted{};
    wanted.ai_socktype = SOCK_STREAM;
    wanted.ai_family = (flags & RAI_FAMILY) != 0 ? hints->ai_family : AF_UNSPEC;
    if (node == nullptr) wanted.ai_family = AF_INET;  // any address: as devices have both
    wanted.ai_flags = (passive ? AI_PASSIVE : 0) | ((flags & RAI_NUMERICHOST) ? AI_NUMERICHOST : 0);
    addrinfo* found = nullptr;
    if (const int error = getaddrinfo(node, service, &wanted, &found); error != 0) {
      rdma_freeaddrinfo(out);
      return error;
    }
    sockaddr*& address = passive ? out->ai_src_addr : out->ai_dst_addr;
    std::free(address);
    address = CopyOf(found->ai_addr, found->ai_addrlen);
    (passive ? out->ai_src_len : out->ai_dst_len) = found->ai_addrlen;
    freeaddrinfo(found);
  }
  const sockaddr* const either = out->ai_dst_addr != nullptr ? out->ai_dst_addr : out->ai_src_addr;
  if (either == nullptr) {
    rdma_freeaddrinfo(out);
    return EAI_NONAME;
  }
  out->ai_family = either->sa_family;
  *res = out;
  return 0;
}

void rdma_freeaddrinfo(rdma_addrinfo* res) {
  while (res != nullptr) {
    rdma_addrinfo* const next = res->ai_next;
    std::free(res->ai_src_addr);
    std::free(res->ai_dst_addr);
    std::free(res);
    res = next;
  }
}

}  // extern "C"
