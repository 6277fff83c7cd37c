// SPDX-License-Identifier: Apache-2.0
//
// A datagram longer than its receive is dropped, and the receive stays for the next (IBTA 9.9.3,
// class D). One queue pair sends both to itself.
#include <stdio.h>
#include <stdlib.h>

#include "probe.h"

enum { kGrh = 40, kQkey = 7, kSends = 1 };

// In RTS, and the way to itself.
static struct ibv_ah* make_ready(struct end* end) {
  struct addrinfo* address = device_address();
  if (rdma_create_id(NULL, &end->id, NULL, RDMA_PS_UDP) != 0 ||
      rdma_bind_addr(end->id, address->ai_addr) != 0) {
    cannot("bind to the address");
  }
  struct ibv_context* context = end->id->verbs;
  struct ibv_pd* pd = ibv_alloc_pd(context);
  end->cq = ibv_create_cq(context, 16, NULL, NULL, 0);
  if (pd == NULL || end->cq == NULL) cannot("make a domain and a queue");
  struct ibv_qp_init_attr wanted = {
      .send_cq = end->cq,
      .recv_cq = end->cq,
      .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
      .qp_type = IBV_QPT_UD,
      .sq_sig_all = 1};
  end->qp = ibv_create_qp(pd, &wanted);
  if (end->qp == NULL) cannot("create a queue pair");
  struct ibv_qp_attr to = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = kQkey};
  int error =
      ibv_modify_qp(end->qp, &to, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
  to.qp_state = IBV_QPS_RTR;
  if (error == 0) error = ibv_modify_qp(end->qp, &to, IBV_QP_STATE);
  to.qp_state = IBV_QPS_RTS;
  if (error == 0) error = ibv_modify_qp(end->qp, &to, IBV_QP_STATE | IBV_QP_SQ_PSN);
  if (error != 0) cannot("make the queue pair ready");
  end->bytes = calloc(1, kMemory);
  end->mr = ibv_reg_mr(pd, end->bytes, kMemory, IBV_ACCESS_LOCAL_WRITE);
  if (end->mr == NULL) cannot("register memory");
  struct ibv_ah_attr path = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 64}};
  path.grh.sgid_index = gid_index(context, address, &path.grh.dgid);
  struct ibv_ah* ah = ibv_create_ah(pd, &path);
  if (ah == NULL) cannot("create an address handle");
  return ah;
}

static void send_datagram(struct end* end, struct ibv_ah* ah, uint32_t length) {
  struct ibv_sge entry = piece(end, 4096, length);
  struct ibv_send_wr wr = {.wr_id = kSends, .sg_list = &entry, .num_sge = 1, .opcode = IBV_WR_SEND};
  struct ibv_send_wr* bad;
  wr.wr.ud.ah = ah;
  wr.wr.ud.remote_qpn = end->qp->qp_num;
  wr.wr.ud.remote_qkey = kQkey;
  if (ibv_post_send(end->qp, &wr, &bad) != 0) cannot("post a datagram");
}

static bool too_small(char seen[kSeen]) {
  struct end end = {0};
  struct ibv_ah* ah = make_ready(&end);
  post_receive(&end, piece(&end, 0, kGrh + 99));
  send_datagram(&end, ah, 100);
  send_datagram(&end, ah, 99);
  struct ibv_wc wc = wait_one(&end);
  while (wc.wr_id == kSends && wc.status != (enum ibv_wc_status)NOTHING) wc = wait_one(&end);
  snprintf(seen, kSeen, "receive %s", status_name(wc.status));
  return wc.status == IBV_WC_SUCCESS && wc.byte_len == kGrh + 99;
}

const struct deviation deviations[] = {{"All/Datagrams.AReceiveThatIsTooSmallStays/verbs",
                                        "receive SUCCESS, by the second", too_small},
                                       {0}};
