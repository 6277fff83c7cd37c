// SPDX-License-Identifier: Apache-2.0
//
// A message of an unreliable connection that is longer than its receive is dropped, and the
// receive stays for the next (IBTA 9.9.3, class D); a shared one completes in error (class E). The
// queue pair goes on. One queue pair, connected with itself.
#include <stdio.h>
#include <stdlib.h>

#include "probe.h"

enum { kSends = 1 };

static void make_ready(struct end* end, bool shared) {
  struct addrinfo* address = device_address();
  if (rdma_create_id(NULL, &end->id, NULL, RDMA_PS_TCP) != 0 ||
      rdma_bind_addr(end->id, address->ai_addr) != 0) {
    cannot("bind to the address");
  }
  struct ibv_context* context = end->id->verbs;
  struct ibv_pd* pd = ibv_alloc_pd(context);
  end->cq = ibv_create_cq(context, 16, NULL, NULL, 0);
  if (pd == NULL || end->cq == NULL) cannot("make a domain and a queue");
  struct ibv_srq_init_attr srq = {.attr = {.max_wr = 16, .max_sge = 1}};
  if (shared && (end->srq = ibv_create_srq(pd, &srq)) == NULL) {
    cannot("create a shared receive queue");
  }
  struct ibv_qp_init_attr wanted = {
      .send_cq = end->cq,
      .recv_cq = end->cq,
      .srq = end->srq,
      .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
      .qp_type = IBV_QPT_UC,
      .sq_sig_all = 1};
  end->qp = ibv_create_qp(pd, &wanted);
  if (end->qp == NULL) cannot("create a queue pair");
  struct ibv_qp_attr to = {.qp_state = IBV_QPS_INIT, .port_num = 1};
  int error = ibv_modify_qp(end->qp, &to,
                            IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  to.qp_state = IBV_QPS_RTR;
  to.path_mtu = IBV_MTU_1024;
  to.dest_qp_num = end->qp->qp_num;
  to.ah_attr = (struct ibv_ah_attr){.is_global = 1, .port_num = 1, .grh = {.hop_limit = 64}};
  to.ah_attr.grh.sgid_index = gid_index(context, address, &to.ah_attr.grh.dgid);
  if (error == 0) {
    error = ibv_modify_qp(
        end->qp, &to, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN);
  }
  to.qp_state = IBV_QPS_RTS;
  if (error == 0) error = ibv_modify_qp(end->qp, &to, IBV_QP_STATE | IBV_QP_SQ_PSN);
  if (error != 0) cannot("make the queue pair ready");
  end->bytes = calloc(1, kMemory);
  end->mr = ibv_reg_mr(pd, end->bytes, kMemory, IBV_ACCESS_LOCAL_WRITE);
  if (end->mr == NULL) cannot("register memory");
}

static void send_message(struct end* end, uint32_t length) {
  struct ibv_sge entry = piece(end, 4096, length);
  struct ibv_send_wr wr = {.wr_id = kSends, .sg_list = &entry, .num_sge = 1, .opcode = IBV_WR_SEND};
  struct ibv_send_wr* bad;
  if (ibv_post_send(end->qp, &wr, &bad) != 0) cannot("post a message");
}

static struct ibv_wc next_receive(struct end* end) {
  struct ibv_wc wc = wait_one(end);
  while (wc.wr_id == kSends && wc.status != (enum ibv_wc_status)NOTHING) wc = wait_one(end);
  return wc;
}

static bool too_small(char seen[kSeen]) {
  struct end end = {0};
  make_ready(&end, false);
  post_receive(&end, piece(&end, 0, 99));
  send_message(&end, 100);
  send_message(&end, 99);
  const struct ibv_wc wc = next_receive(&end);
  snprintf(seen, kSeen, "receive %s", status_name(wc.status));
  return wc.status == IBV_WC_SUCCESS && wc.byte_len == 99;
}

static bool shared_too_small(char seen[kSeen]) {
  struct end end = {0};
  make_ready(&end, true);
  post_receive(&end, piece(&end, 0, 99));
  post_receive(&end, piece(&end, 0, 99));
  send_message(&end, 100);
  const struct ibv_wc first = next_receive(&end);
  struct ibv_qp_attr now;
  struct ibv_qp_init_attr unused;
  const bool goes_on =
      ibv_query_qp(end.qp, &now, IBV_QP_STATE, &unused) == 0 && now.qp_state == IBV_QPS_RTS;
  snprintf(seen, kSeen, "receive %s, and the queue pair %s", status_name(first.status),
           goes_on ? "goes on" : "is in ERR");
  return first.status == IBV_WC_REM_INV_REQ_ERR && goes_on;
}

const struct deviation deviations[] = {
    {"All/UnreliableConnections.AReceiveThatIsTooSmallStays/verbs",
     "receive SUCCESS, by the second", too_small},
    {"All/UnreliableConnections.ASharedReceiveQueueServesThem/verbs",
     "receive REM_INV_REQ_ERR, and the queue pair goes on", shared_too_small},
    {0}};
