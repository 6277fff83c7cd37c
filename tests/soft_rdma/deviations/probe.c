// SPDX-License-Identifier: Apache-2.0
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void cannot(const char* what) {
  fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
  exit(2);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

bool readable_within(int fd, int milliseconds) {
  struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
  return poll(&poll_fd, 1, milliseconds) == 1;
}

struct rdma_cm_event next_event(struct rdma_event_channel* channel,
                                enum rdma_cm_event_type expected) {
  struct rdma_cm_event *event, copy;
  errno = ETIMEDOUT;
  if (!readable_within(channel->fd, 10000)) cannot(rdma_event_str(expected));
  if (rdma_get_cm_event(channel, &event) != 0) cannot("get an event of rdma_cm");
  copy = *event;
  rdma_ack_cm_event(event);
  if (copy.event == expected) return copy;
  errno = copy.status < 0 ? -copy.status : EPROTO;
  cannot(rdma_event_str(copy.event));
}

void make_end(struct end* end, struct set_up how) {
  struct ibv_context* context = end->id->verbs;
  if (how.notified) {
    end->channel = ibv_create_comp_channel(context);
    if (end->channel == NULL) cannot("create a completion channel");
  }
  end->cq = ibv_create_cq(context, 64, NULL, end->channel, 0);
  if (end->cq == NULL) cannot("create a completion queue");
  struct ibv_qp_init_attr wanted = {
      .send_cq = end->cq,
      .recv_cq = end->cq,
      .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 2, .max_recv_sge = 2},
      .qp_type = IBV_QPT_RC,
      .sq_sig_all = 1};
  if (rdma_create_qp(end->id, NULL, &wanted) != 0) cannot("create a queue pair");
  end->qp = end->id->qp;
  if (how.shared) {
    // A queue pair with an SRQ is made anew: its domain exists only now.
    struct ibv_srq_init_attr srq = {.attr = {.max_wr = 16, .max_sge = 1}};
    end->srq = ibv_create_srq(end->qp->pd, &srq);
    if (end->srq == NULL) cannot("create a shared receive queue");
    rdma_destroy_qp(end->id);
    wanted.srq = end->srq;
    if (rdma_create_qp(end->id, NULL, &wanted) != 0) cannot("create a queue pair with an SRQ");
    end->qp = end->id->qp;
  }
  end->bytes = aligned_alloc(4096, kMemory);
  if (end->bytes == NULL) cannot("get memory");
  memset(end->bytes, 0, kMemory);
  int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
  end->mr = ibv_reg_mr(end->qp->pd, end->bytes, kMemory,
                       rights | IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND);
  if (end->mr == NULL) end->mr = ibv_reg_mr(end->qp->pd, end->bytes, kMemory, rights);  // iWARP
  if (end->mr == NULL) cannot("register memory");
}

struct addrinfo* device_address(void) {
  const char* text = getenv("VERBENA_SOFT_RDMA_ADDRESS");
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *address = NULL;
  if (text == NULL || getaddrinfo(text, "7471", &hints, &address) != 0) {
    cannot("read VERBENA_SOFT_RDMA_ADDRESS");
  }
  return address;
}

uint8_t gid_index(struct ibv_context* context, const struct addrinfo* address, union ibv_gid* gid) {
  const struct sockaddr_in* ip = (const struct sockaddr_in*)address->ai_addr;
  const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
  for (int i = 0; i < 255; ++i) {
    if (ibv_query_gid(context, 1, i, gid) != 0) continue;
    if (memcmp(gid->raw, mapped, 12) == 0 && memcmp(gid->raw + 12, &ip->sin_addr, 4) == 0) {
      return (uint8_t)i;
    }
  }
  cannot("find the GID of the address");
}

struct pair connect_pair(struct set_up how) {
  struct pair pair = {0};
  struct addrinfo* address = device_address();
  struct rdma_event_channel* channel = rdma_create_event_channel();
  if (channel == NULL) cannot("open rdma_cm");
  struct rdma_cm_id* listener;
  if (rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP) != 0 ||
      rdma_bind_addr(listener, address->ai_addr) != 0 || rdma_listen(listener, 1) != 0) {
    cannot("listen");
  }
  if (rdma_create_id(channel, &pair.client.id, NULL, RDMA_PS_TCP) != 0 ||
      rdma_resolve_addr(pair.client.id, NULL, address->ai_addr, 2000) != 0) {
    cannot("resolve the address");
  }
  next_event(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
  if (rdma_resolve_route(pair.client.id, 2000) != 0) cannot("resolve the route");
  next_event(channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
  make_end(&pair.client, (struct set_up){0});
  // RNR is waited for: a receive that this program posts late is no row.
  struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
  parameters.initiator_depth = how.connect_depth != 0 ? how.connect_depth : 4;
  parameters.responder_resources = how.connect_resources != 0 ? how.connect_resources : 4;
  if (rdma_connect(pair.client.id, &parameters) != 0) cannot("connect");
  pair.server.id = next_event(channel, RDMA_CM_EVENT_CONNECT_REQUEST).id;
  make_end(&pair.server, how);
  parameters.initiator_depth = how.accept_depth != 0 ? how.accept_depth : 4;
  parameters.responder_resources = how.accept_resources != 0 ? how.accept_resources : 4;
  if (rdma_accept(pair.server.id, &parameters) != 0) cannot("accept");
  next_event(channel, RDMA_CM_EVENT_ESTABLISHED);
  next_event(channel, RDMA_CM_EVENT_ESTABLISHED);
  rdma_destroy_id(listener);  // its port is the next pair's
  freeaddrinfo(address);
  return pair;
}

struct ibv_wc wait_one(struct end* end) {
  struct ibv_wc wc = {0};
  double until = now() + 10;
  while (now() < until) {
    int count = ibv_poll_cq(end->cq, 1, &wc);
    if (count < 0) cannot("poll a completion queue");
    if (count == 1) return wc;
  }
  wc.status = (enum ibv_wc_status)NOTHING;
  return wc;
}

const char* status_name(int status) {
  switch (status) {
    case IBV_WC_SUCCESS:
      return "SUCCESS";
    case IBV_WC_LOC_LEN_ERR:
      return "LOC_LEN_ERR";
    case IBV_WC_LOC_QP_OP_ERR:
      return "LOC_QP_OP_ERR";
    case IBV_WC_LOC_PROT_ERR:
      return "LOC_PROT_ERR";
    case IBV_WC_WR_FLUSH_ERR:
      return "WR_FLUSH_ERR";
    case IBV_WC_REM_INV_REQ_ERR:
      return "REM_INV_REQ_ERR";
    case IBV_WC_REM_ACCESS_ERR:
      return "REM_ACCESS_ERR";
    case IBV_WC_REM_OP_ERR:
      return "REM_OP_ERR";
    case IBV_WC_RETRY_EXC_ERR:
      return "RETRY_EXC_ERR";
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return "RNR_RETRY_EXC_ERR";
    case IBV_WC_GENERAL_ERR:
      return "GENERAL_ERR";
    case NOTHING:
      return "no completion";
    default:
      return "another status";
  }
}

bool event_comes(struct end* end, enum ibv_event_type type) {
  struct ibv_context* context = end->id->verbs;
  if (fcntl(context->async_fd, F_SETFL, O_NONBLOCK) != 0) cannot("set O_NONBLOCK");
  double until = now() + 3;
  while (now() < until) {
    if (!readable_within(context->async_fd, 100)) continue;
    struct ibv_async_event event;
    if (ibv_get_async_event(context, &event) != 0) continue;
    ibv_ack_async_event(&event);
    if (event.event_type == type) return true;
  }
  return false;
}

struct ibv_sge piece(struct end* end, size_t offset, uint32_t length) {
  return (struct ibv_sge){(uintptr_t)end->bytes + offset, length, end->mr->lkey};
}

void post_receive(struct end* end, struct ibv_sge entry) {
  struct ibv_recv_wr wr = {.sg_list = &entry, .num_sge = 1}, *bad;
  errno =
      end->srq != NULL ? ibv_post_srq_recv(end->srq, &wr, &bad) : ibv_post_recv(end->qp, &wr, &bad);
  if (errno != 0) cannot("post a receive");
}

void post_send(struct end* end, enum ibv_wr_opcode opcode, struct ibv_sge entry, uint64_t address,
               uint32_t key) {
  struct ibv_send_wr wr = {.sg_list = &entry, .num_sge = 1, .opcode = opcode}, *bad;
  if (opcode == IBV_WR_LOCAL_INV) wr.num_sge = 0;
  if (opcode == IBV_WR_SEND_WITH_INV || opcode == IBV_WR_LOCAL_INV) {
    wr.invalidate_rkey = key;
  } else {
    wr.wr.rdma.remote_addr = address;
    wr.wr.rdma.rkey = key;
  }
  errno = ibv_post_send(end->qp, &wr, &bad);
  if (errno != 0) cannot("post a request");
}

uint32_t bind_window(struct end* end, size_t first, size_t length) {
  struct ibv_mw* window = ibv_alloc_mw(end->qp->pd, IBV_MW_TYPE_2);
  if (window == NULL) cannot("allocate a window of type 2");
  const uint32_t key = ibv_inc_rkey(window->rkey);
  struct ibv_send_wr bind = {.opcode = IBV_WR_BIND_MW}, *bad;
  bind.bind_mw.mw = window;
  bind.bind_mw.rkey = key;
  bind.bind_mw.bind_info =
      (struct ibv_mw_bind_info){end->mr, (uintptr_t)end->bytes + first, length,
                                IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE};
  errno = ibv_post_send(end->qp, &bind, &bad);
  if (errno != 0) cannot("post the bind");
  if (wait_one(end).status != IBV_WC_SUCCESS) cannot("bind the window");
  return key;
}

int main(int argc, char** argv) {
  for (const struct deviation* row = deviations; row->name != NULL; ++row) {
    if (argc != 2 || strcmp(argv[1], row->name) != 0) continue;
    char seen[kSeen] = "";
    const bool gone = row->show(seen);
    printf("%s | %s | %s\n", row->expected, seen, gone ? "gone" : "confirmed");
    return 0;
  }
  fprintf(stderr, "usage: %s CASE, one of:\n", argv[0]);
  for (const struct deviation* row = deviations; row->name != NULL; ++row) {
    fprintf(stderr, "  %s\n", row->name);
  }
  return 2;
}
