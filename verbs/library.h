// SPDX-License-Identifier: Apache-2.0
// libibverbs and librdmacm, loaded at run time, so that one binary runs with and without them.
//
// Only what the libraries export is here. What verbs.h defines inline (ibv_post_send, ibv_poll_cq,
// ibv_req_notify_cq, ibv_alloc_mw …) calls through the context's own table and needs no symbol.
// Immutable once loaded; any thread. Never unloaded: drivers have threads and atfork handlers.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "absl/status/statusor.h"

namespace verbena::verbs {

// X(member, symbol, version). The versions are those of the ABI that verbs.h describes: without
// one, dlsym(3) might find the IBVERBS_1.0 entry, whose structs differ.
#define VERBENA_IBVERBS_SYMBOLS(X)                                 \
  X(get_device_list, ibv_get_device_list, "IBVERBS_1.1")           \
  X(free_device_list, ibv_free_device_list, "IBVERBS_1.1")         \
  X(open_device, ibv_open_device, "IBVERBS_1.1")                   \
  X(close_device, ibv_close_device, "IBVERBS_1.1")                 \
  X(get_async_event, ibv_get_async_event, "IBVERBS_1.1")           \
  X(ack_async_event, ibv_ack_async_event, "IBVERBS_1.1")           \
  X(query_device, ibv_query_device, "IBVERBS_1.1")                 \
  X(query_port, ibv_query_port, "IBVERBS_1.1")                     \
  X(query_gid_table, _ibv_query_gid_table, "IBVERBS_1.11")         \
  X(alloc_pd, ibv_alloc_pd, "IBVERBS_1.1")                         \
  X(dealloc_pd, ibv_dealloc_pd, "IBVERBS_1.1")                     \
  X(reg_mr, ibv_reg_mr, "IBVERBS_1.1")                             \
  X(reg_mr_iova, ibv_reg_mr_iova, "IBVERBS_1.7")                   \
  X(dereg_mr, ibv_dereg_mr, "IBVERBS_1.1")                         \
  X(create_comp_channel, ibv_create_comp_channel, "IBVERBS_1.0")   \
  X(destroy_comp_channel, ibv_destroy_comp_channel, "IBVERBS_1.0") \
  X(create_cq, ibv_create_cq, "IBVERBS_1.1")                       \
  X(resize_cq, ibv_resize_cq, "IBVERBS_1.1")                       \
  X(destroy_cq, ibv_destroy_cq, "IBVERBS_1.1")                     \
  X(get_cq_event, ibv_get_cq_event, "IBVERBS_1.1")                 \
  X(ack_cq_events, ibv_ack_cq_events, "IBVERBS_1.1")               \
  X(create_srq, ibv_create_srq, "IBVERBS_1.1")                     \
  X(modify_srq, ibv_modify_srq, "IBVERBS_1.1")                     \
  X(query_srq, ibv_query_srq, "IBVERBS_1.1")                       \
  X(destroy_srq, ibv_destroy_srq, "IBVERBS_1.1")                   \
  X(create_qp, ibv_create_qp, "IBVERBS_1.1")                       \
  X(query_qp, ibv_query_qp, "IBVERBS_1.1")                         \
  X(modify_qp, ibv_modify_qp, "IBVERBS_1.1")                       \
  X(destroy_qp, ibv_destroy_qp, "IBVERBS_1.1")                     \
  X(create_ah, ibv_create_ah, "IBVERBS_1.1")                       \
  X(destroy_ah, ibv_destroy_ah, "IBVERBS_1.1")                     \
  X(attach_mcast, ibv_attach_mcast, "IBVERBS_1.1")                 \
  X(detach_mcast, ibv_detach_mcast, "IBVERBS_1.1")

#define VERBENA_RDMACM_SYMBOLS(X)                                    \
  X(create_event_channel, rdma_create_event_channel, "RDMACM_1.0")   \
  X(destroy_event_channel, rdma_destroy_event_channel, "RDMACM_1.0") \
  X(create_id, rdma_create_id, "RDMACM_1.0")                         \
  X(destroy_id, rdma_destroy_id, "RDMACM_1.0")                       \
  X(bind_addr, rdma_bind_addr, "RDMACM_1.0")                         \
  X(resolve_addr, rdma_resolve_addr, "RDMACM_1.0")                   \
  X(resolve_route, rdma_resolve_route, "RDMACM_1.0")                 \
  X(listen, rdma_listen, "RDMACM_1.0")                               \
  X(connect, rdma_connect, "RDMACM_1.0")                             \
  X(accept, rdma_accept, "RDMACM_1.0")                               \
  X(reject, rdma_reject, "RDMACM_1.0")                               \
  X(disconnect, rdma_disconnect, "RDMACM_1.0")                       \
  X(notify, rdma_notify, "RDMACM_1.0")                               \
  X(get_cm_event, rdma_get_cm_event, "RDMACM_1.0")                   \
  X(ack_cm_event, rdma_ack_cm_event, "RDMACM_1.0")                   \
  X(set_option, rdma_set_option, "RDMACM_1.0")                       \
  X(establish, rdma_establish, "RDMACM_1.2")                         \
  X(init_qp_attr, rdma_init_qp_attr, "RDMACM_1.2")

struct Library {
#define VERBENA_MEMBER(member, symbol, version) decltype(&::symbol) member = nullptr;
  VERBENA_IBVERBS_SYMBOLS(VERBENA_MEMBER)
  VERBENA_RDMACM_SYMBOLS(VERBENA_MEMBER)
#undef VERBENA_MEMBER
};

// The one copy of this process. NotFound: a library or symbol is missing; the message names it and
// the Debian package that brings it. The first call decides; it may block on the file system.
absl::StatusOr<const Library*> Load();

// For objects, which exist only after Load() was OK.
const Library& Lib();

}  // namespace verbena::verbs
