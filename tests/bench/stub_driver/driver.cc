// SPDX-License-Identifier: Apache-2.0
// A driver that does nothing, as fast as one can: stands in for libibverbs.so.1 and
// librdmacm.so.1, so that what the library spends above a driver can be counted. Two devices:
// stub0, RoCE, and stub1, iWARP, whose connection manager has every connect established at once.
// Every request is complete when it is posted, no byte moves, no network. One thread may post and
// poll.
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>

namespace {

constexpr uint32_t kEntries = 4096;  // a power of two

struct Completions {
  ibv_cq cq;  // first: the driver's own structs start with the library's
  uint64_t posted = 0, polled = 0;
  struct {
    uint64_t id;
    ibv_wc_opcode opcode;
  } entries[kEntries];

  void Add(uint64_t id, ibv_wc_opcode opcode) { entries[posted++ % kEntries] = {id, opcode}; }
};

struct Pair {
  ibv_qp qp;
  ibv_qp_state state = IBV_QPS_RESET;
  Completions* completions = nullptr;
};

// What is posted to it completes on the receive queue of the latest queue pair that uses it.
struct SharedQueue {
  ibv_srq srq;
  Completions* completions = nullptr;
};

struct Channel {
  rdma_event_channel channel;
  std::mutex mutex;
  std::deque<rdma_cm_event> events;

  void Add(rdma_cm_id* id, rdma_cm_event_type type) {
    rdma_cm_event event{};
    event.id = id;
    event.event = type;
    event.param.conn.initiator_depth = event.param.conn.responder_resources = 16;
    const std::lock_guard lock(mutex);
    events.push_back(event);
    (void)eventfd_write(channel.fd, 1);
  }
};

ibv_device devices[2];
ibv_context of_connections;  // the connection manager's own, of stub1
uint32_t numbers = 1;

// Counted by these names.
extern "C" int DriverPost(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** /*bad*/) {
  Completions* to = reinterpret_cast<Pair*>(qp)->completions;
  for (; wr != nullptr; wr = wr->next) {
    if ((wr->send_flags & IBV_SEND_SIGNALED) != 0) to->Add(wr->wr_id, IBV_WC_RDMA_WRITE);
  }
  return 0;
}

extern "C" int DriverReceive(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** /*bad*/) {
  Completions* to = reinterpret_cast<Pair*>(qp)->completions;
  for (; wr != nullptr; wr = wr->next) to->Add(wr->wr_id, IBV_WC_RECV);
  return 0;
}

extern "C" int DriverPoll(ibv_cq* cq, int most, ibv_wc* wc) {
  auto* from = reinterpret_cast<Completions*>(cq);
  int n = 0;
  for (; n < most && from->polled != from->posted; ++n, ++wc) {
    const auto& entry = from->entries[from->polled++ % kEntries];
    wc->wr_id = entry.id;
    wc->status = IBV_WC_SUCCESS;
    wc->opcode = entry.opcode;
    wc->byte_len = 8;
    wc->qp_num = 1;
    wc->wc_flags = 0;
  }
  return n;
}

extern "C" int DriverReceiveShared(ibv_srq* srq, ibv_recv_wr* wr, ibv_recv_wr** /*bad*/) {
  Completions* to = reinterpret_cast<SharedQueue*>(srq)->completions;
  for (; wr != nullptr; wr = wr->next) to->Add(wr->wr_id, IBV_WC_RECV);
  return 0;
}

int RequestNotify(ibv_cq*, int) { return 0; }

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

ibv_device** ibv_get_device_list(int* count) {
  auto** list = static_cast<ibv_device**>(std::calloc(3, sizeof(ibv_device*)));
  for (int i = 0; i < 2; ++i) {
    ibv_device& device = devices[i];
    std::snprintf(device.name, sizeof device.name, "stub%d", i);
    std::snprintf(device.dev_name, sizeof device.dev_name, "uverbs%d", i);
    std::snprintf(device.ibdev_path, sizeof device.ibdev_path, "/sys/class/infiniband/stub%d", i);
    device.node_type = i == 0 ? IBV_NODE_CA : IBV_NODE_RNIC;
    device.transport_type = i == 0 ? IBV_TRANSPORT_IB : IBV_TRANSPORT_IWARP;
    list[i] = &device;
  }
  if (count != nullptr) *count = 2;
  return list;
}
void ibv_free_device_list(ibv_device** list) { std::free(list); }

ibv_context* ibv_open_device(ibv_device* d) {
  auto* extended = static_cast<verbs_context*>(std::calloc(1, sizeof(verbs_context)));
  extended->sz = sizeof(verbs_context);
  ibv_context* context = &extended->context;
  context->device = d;
  context->abi_compat = reinterpret_cast<void*>(-1L);  // __VERBS_ABI_IS_EXTENDED
  context->async_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  context->cmd_fd = -1;
  context->num_comp_vectors = 1;
  context->ops.post_send = DriverPost;
  context->ops.post_recv = DriverReceive;
  context->ops.post_srq_recv = DriverReceiveShared;
  context->ops.poll_cq = DriverPoll;
  context->ops.req_notify_cq = RequestNotify;
  return context;
}
int ibv_close_device(ibv_context* context) {
  close(context->async_fd);
  std::free(reinterpret_cast<char*>(context) - offsetof(verbs_context, context));
  return 0;
}

int ibv_query_device(ibv_context*, ibv_device_attr* a) {
  *a = {};
  a->max_qp = a->max_cq = a->max_mr = a->max_pd = 1024;
  a->max_qp_wr = a->max_cqe = kEntries;
  a->max_sge = a->max_srq_sge = 16;
  a->max_srq = 1024;
  a->max_srq_wr = kEntries;
  a->max_mr_size = ~0ull;
  a->max_qp_rd_atom = a->max_qp_init_rd_atom = 16;
  a->atomic_cap = IBV_ATOMIC_HCA;
  a->phys_port_cnt = 1;
  return 0;
}
#undef ibv_query_port
int ibv_query_port(ibv_context*, uint8_t, _compat_ibv_port_attr* out) {
  auto* a = reinterpret_cast<ibv_port_attr*>(out);
  std::memset(a, 0, offsetof(ibv_port_attr, port_cap_flags2));
  a->state = IBV_PORT_ACTIVE;
  a->active_mtu = a->max_mtu = IBV_MTU_4096;
  a->gid_tbl_len = 1;
  a->max_msg_sz = 1u << 31;
  a->link_layer = IBV_LINK_LAYER_ETHERNET;
  return 0;
}
ssize_t _ibv_query_gid_table(ibv_context*, ibv_gid_entry* entries, size_t most, uint32_t, size_t) {
  if (most == 0) return 0;
  entries[0] = {};
  const uint8_t gid[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1};  // RFC 5737
  std::memcpy(entries[0].gid.raw, gid, sizeof gid);
  entries[0].port_num = 1;
  entries[0].gid_type = IBV_GID_TYPE_ROCE_V2;
  return 1;
}

ibv_pd* ibv_alloc_pd(ibv_context* context) { return new ibv_pd{context, 0}; }
int ibv_dealloc_pd(ibv_pd* pd) {
  delete pd;
  return 0;
}
#undef ibv_reg_mr
#undef ibv_reg_mr_iova
ibv_mr* ibv_reg_mr_iova(ibv_pd* pd, void* at, size_t length, uint64_t, int) {
  const uint32_t key = ++numbers;
  return new ibv_mr{pd->context, pd, at, length, 0, key, key};
}
ibv_mr* ibv_reg_mr(ibv_pd* pd, void* at, size_t length, int access) {
  return ibv_reg_mr_iova(pd, at, length, 0, access);
}
int ibv_dereg_mr(ibv_mr* mr) {
  delete mr;
  return 0;
}

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  return new ibv_comp_channel{context, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 0};
}
int ibv_destroy_comp_channel(ibv_comp_channel* channel) {
  close(channel->fd);
  delete channel;
  return 0;
}
ibv_cq* ibv_create_cq(ibv_context* context, int entries, void* own, ibv_comp_channel* channel,
                      int) {
  auto* made = new (std::calloc(1, sizeof(Completions))) Completions;
  made->cq.context = context;
  made->cq.cq_context = own;
  made->cq.channel = channel;
  made->cq.cqe = entries;
  return &made->cq;
}
int ibv_resize_cq(ibv_cq* cq, int entries) {
  cq->cqe = entries;
  return 0;
}
int ibv_destroy_cq(ibv_cq* cq) {
  std::free(cq);
  return 0;
}
int ibv_get_cq_event(ibv_comp_channel*, ibv_cq**, void**) {
  errno = EAGAIN;
  return -1;
}
void ibv_ack_cq_events(ibv_cq*, unsigned) {}

ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* wanted) {
  auto* made = new (std::calloc(1, sizeof(Pair))) Pair;
  made->qp.context = pd->context;
  made->qp.qp_context = wanted->qp_context;
  made->qp.pd = pd;
  made->qp.qp_num = ++numbers;
  made->qp.qp_type = wanted->qp_type;
  made->completions = reinterpret_cast<Completions*>(wanted->send_cq);
  if (wanted->srq != nullptr) {
    reinterpret_cast<SharedQueue*>(wanted->srq)->completions =
        reinterpret_cast<Completions*>(wanted->recv_cq);
  }
  wanted->cap.max_inline_data = std::min(wanted->cap.max_inline_data, 64u);
  return &made->qp;
}
int ibv_query_qp(ibv_qp* qp, ibv_qp_attr* a, int, ibv_qp_init_attr* init) {
  *a = {};
  *init = {};
  a->qp_state = reinterpret_cast<Pair*>(qp)->state;
  return 0;
}
int ibv_modify_qp(ibv_qp* qp, ibv_qp_attr* a, int mask) {
  if ((mask & IBV_QP_STATE) != 0) reinterpret_cast<Pair*>(qp)->state = a->qp_state;
  return 0;
}
int ibv_destroy_qp(ibv_qp* qp) {
  std::free(qp);
  return 0;
}

ibv_ah* ibv_create_ah(ibv_pd* pd, ibv_ah_attr*) { return new ibv_ah{pd->context, pd, 0}; }
int ibv_destroy_ah(ibv_ah* ah) {
  delete ah;
  return 0;
}

int ibv_get_async_event(ibv_context*, ibv_async_event*) {
  errno = EAGAIN;
  return -1;
}
void ibv_ack_async_event(ibv_async_event*) {}

ibv_srq* ibv_create_srq(ibv_pd* pd, ibv_srq_init_attr* wanted) {
  auto* made = new (std::calloc(1, sizeof(SharedQueue))) SharedQueue;
  made->srq.context = pd->context;
  made->srq.srq_context = wanted->srq_context;
  made->srq.pd = pd;
  return &made->srq;
}
int ibv_destroy_srq(ibv_srq* srq) {
  std::free(srq);
  return 0;
}

rdma_event_channel* rdma_create_event_channel() {
  auto* made = new Channel;
  made->channel.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return &made->channel;
}
void rdma_destroy_event_channel(rdma_event_channel* channel) {
  close(channel->fd);
  delete reinterpret_cast<Channel*>(channel);
}
int rdma_get_cm_event(rdma_event_channel* channel, rdma_cm_event** event) {
  auto* from = reinterpret_cast<Channel*>(channel);
  const std::lock_guard lock(from->mutex);
  eventfd_t count;
  (void)eventfd_read(channel->fd, &count);
  if (from->events.empty()) {
    errno = EAGAIN;
    return -1;
  }
  *event = new rdma_cm_event(from->events.front());
  from->events.pop_front();
  return 0;
}
int rdma_ack_cm_event(rdma_cm_event* event) {
  delete event;
  return 0;
}
int rdma_create_id(rdma_event_channel* channel, rdma_cm_id** id, void* own, rdma_port_space) {
  *id = static_cast<rdma_cm_id*>(std::calloc(1, sizeof(rdma_cm_id)));
  (*id)->channel = channel;
  (*id)->context = own;
  return 0;
}
int rdma_destroy_id(rdma_cm_id* id) {
  std::free(id);
  return 0;
}
int rdma_resolve_addr(rdma_cm_id* id, sockaddr*, sockaddr* to, int) {
  of_connections.device = &devices[1];
  id->verbs = &of_connections;
  std::memcpy(&id->route.addr.dst_storage, to, sizeof(sockaddr_in));
  id->route.addr.src_addr.sa_family = AF_INET;
  reinterpret_cast<Channel*>(id->channel)->Add(id, RDMA_CM_EVENT_ADDR_RESOLVED);
  return 0;
}
int rdma_resolve_route(rdma_cm_id* id, int) {
  reinterpret_cast<Channel*>(id->channel)->Add(id, RDMA_CM_EVENT_ROUTE_RESOLVED);
  return 0;
}
int rdma_connect(rdma_cm_id* id, rdma_conn_param*) {
  reinterpret_cast<Channel*>(id->channel)->Add(id, RDMA_CM_EVENT_ESTABLISHED);
  return 0;
}
int rdma_disconnect(rdma_cm_id*) { return 0; }

// What the figures do not need is there, and refuses.
#define REFUSES(type, name, ...) \
  type name(__VA_ARGS__) {       \
    errno = EOPNOTSUPP;          \
    return type(-1);             \
  }
REFUSES(int, ibv_attach_mcast, ibv_qp*, const ibv_gid*, uint16_t)
REFUSES(int, ibv_detach_mcast, ibv_qp*, const ibv_gid*, uint16_t)
REFUSES(int, ibv_modify_srq, ibv_srq*, ibv_srq_attr*, int)
REFUSES(int, ibv_query_srq, ibv_srq*, ibv_srq_attr*)
REFUSES(int, rdma_bind_addr, rdma_cm_id*, sockaddr*)
REFUSES(int, rdma_listen, rdma_cm_id*, int)
REFUSES(int, rdma_accept, rdma_cm_id*, rdma_conn_param*)
REFUSES(int, rdma_reject, rdma_cm_id*, const void*, uint8_t)
REFUSES(int, rdma_notify, rdma_cm_id*, ibv_event_type)
REFUSES(int, rdma_establish, rdma_cm_id*)
REFUSES(int, rdma_init_qp_attr, rdma_cm_id*, ibv_qp_attr*, int*)
REFUSES(int, rdma_set_option, rdma_cm_id*, int, int, void*, size_t)

// The like of overhead_program's functions.
__attribute__((noinline)) bool BarePost(ibv_qp* qp, ibv_send_wr* wr) {
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, wr, &bad) == 0;
}
__attribute__((noinline)) bool BareQuietPost(ibv_qp* qp, ibv_send_wr* wr) {
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, wr, &bad) == 0;
}
__attribute__((noinline)) bool BareBatch(ibv_qp* qp, ibv_send_wr* wr) {
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, wr, &bad) == 0;
}
__attribute__((noinline)) bool BareReceiveShared(ibv_srq* srq, ibv_recv_wr* wr) {
  ibv_recv_wr* bad = nullptr;
  return ibv_post_srq_recv(srq, wr, &bad) == 0;
}
__attribute__((noinline)) bool BareReceive(ibv_qp* qp, ibv_recv_wr* wr) {
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(qp, wr, &bad) == 0;
}
__attribute__((noinline)) int BarePoll(ibv_cq* cq, ibv_wc* wc) { return ibv_poll_cq(cq, 1, wc); }
__attribute__((noinline)) int BarePollOfMany(ibv_cq* cq, ibv_wc* wc) {
  return ibv_poll_cq(cq, 32, wc);
}
__attribute__((noinline)) int BareEmptyPoll(ibv_cq* cq, ibv_wc* wc) {
  return ibv_poll_cq(cq, 1, wc);
}

int RunBare(int rounds) {
  ibv_context* context = ibv_open_device(&devices[0]);
  ibv_pd* pd = ibv_alloc_pd(context);
  ibv_cq* cq = ibv_create_cq(context, 1, nullptr, nullptr, 0);
  ibv_srq_init_attr shared{};
  ibv_srq* srq = ibv_create_srq(pd, &shared);
  ibv_qp_init_attr wanted{};
  wanted.send_cq = wanted.recv_cq = cq;
  wanted.srq = srq;
  ibv_qp* qp = ibv_create_qp(pd, &wanted);
  ibv_send_wr wrs[32] = {};
  for (int i = 0; i < 32; ++i) {
    wrs[i].send_flags = IBV_SEND_SIGNALED;
    wrs[i].next = i < 31 ? &wrs[i + 1] : nullptr;
  }
  ibv_send_wr quiet{};
  ibv_recv_wr receive{};
  ibv_wc wc[32];
  for (int i = 0; i < rounds; ++i) {
    if (!BareQuietPost(qp, &quiet) || !BarePost(qp, &wrs[31]) || BarePoll(cq, wc) != 1 ||
        BareEmptyPoll(cq, wc) != 0 || !BareReceive(qp, &receive) || ibv_poll_cq(cq, 1, wc) != 1 ||
        !BareReceiveShared(srq, &receive) || ibv_poll_cq(cq, 1, wc) != 1 || !BareBatch(qp, wrs) ||
        BarePollOfMany(cq, wc) != 32) {
      return 1;
    }
  }
  ibv_destroy_qp(qp);
  ibv_destroy_srq(srq);
  ibv_destroy_cq(cq);
  ibv_dealloc_pd(pd);
  return ibv_close_device(context);
}

}  // extern "C"
#pragma GCC visibility pop
