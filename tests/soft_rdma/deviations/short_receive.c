// SPDX-License-Identifier: Apache-2.0
//
// A message longer than its receive (IBTA 9.9.3, 10.8.3.3), also from a shared receive queue, of
// which a queue pair that has failed takes no more: the event says so (IBTA 10.2.9).
#include <stdio.h>

#include "probe.h"

static bool too_long(uint32_t length, bool shared, struct pair* pair, char seen[kSeen]) {
  *pair = connect_pair((struct set_up){.shared = shared});
  post_receive(&pair->server, piece(&pair->server, 0, length - 1));
  post_send(&pair->client, IBV_WR_SEND, piece(&pair->client, 0, length), 0, 0);
  const struct ibv_wc received = wait_one(&pair->server), sent = wait_one(&pair->client);
  snprintf(seen, kSeen, "receiver %s, sender %s", status_name(received.status),
           status_name(sent.status));
  return received.status == IBV_WC_LOC_LEN_ERR && sent.status == IBV_WC_REM_INV_REQ_ERR;
}

static bool one_packet(char seen[kSeen]) {
  struct pair pair;
  return too_long(65, false, &pair, seen);
}

static bool many_packets(char seen[kSeen]) {
  struct pair pair;
  return too_long(200000, false, &pair, seen);
}

static bool last_wqe(char seen[kSeen]) {
  struct pair pair;
  char statuses[kSeen];
  (void)too_long(9, true, &pair, statuses);
  const bool came = event_comes(&pair.server, IBV_EVENT_QP_LAST_WQE_REACHED);
  snprintf(seen, kSeen, came ? "the event" : "no event in 3 s");
  return came;
}

const struct deviation deviations[] = {
    {"All/SendReceive.ReceiveTooSmall/verbs", "receiver LOC_LEN_ERR, sender REM_INV_REQ_ERR",
     one_packet},
    {"All/SendReceive.LargeMessageIntoReceiveTooSmall/verbs",
     "receiver LOC_LEN_ERR, sender REM_INV_REQ_ERR", many_packets},
    {"All/SharedReceives.TakenReceiveFlushesBeforeLastWqe/verbs", "IBV_EVENT_QP_LAST_WQE_REACHED",
     last_wqe},
    {0}};
