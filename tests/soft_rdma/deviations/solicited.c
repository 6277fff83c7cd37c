// SPDX-License-Identifier: Apache-2.0
//
// A completion queue that is armed for solicited completions and errors (IBTA 11.4.2.2,
// ibv_req_notify_cq(3)).
#include <errno.h>
#include <stdio.h>

#include "probe.h"

enum { kAWhileMs = 3000 };

static const char* event_or_not(struct end* end) {
  return readable_within(end->channel->fd, kAWhileMs) ? "an event" : "no event in 3 s";
}

static void arm(struct end* end) {
  errno = ibv_req_notify_cq(end->cq, 1);
  if (errno != 0) cannot("arm the completion queue");
}

static bool message(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){.notified = true});
  post_receive(&pair.server, piece(&pair.server, 0, 8));
  arm(&pair.server);
  struct ibv_sge entry = piece(&pair.client, 0, 8);
  struct ibv_send_wr send = {.sg_list = &entry, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad;
  send.send_flags = IBV_SEND_SOLICITED;
  errno = ibv_post_send(pair.client.qp, &send, &bad);
  if (errno != 0) cannot("post the send");
  const char* came = event_or_not(&pair.server);
  const struct ibv_wc wc = wait_one(&pair.server);
  snprintf(seen, kSeen, "%s, the receive %s", came, status_name(wc.status));
  return came[0] == 'a';
}

static bool error(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){.notified = true});
  post_receive(&pair.server, piece(&pair.server, 0, 8));
  arm(&pair.server);
  if (rdma_disconnect(pair.client.id) != 0) cannot("disconnect");
  const char* came = event_or_not(&pair.server);
  const struct ibv_wc wc = wait_one(&pair.server);
  snprintf(seen, kSeen, "%s, the receive %s", came, status_name(wc.status));
  return came[0] == 'a';
}

const struct deviation deviations[] = {
    {"All/Channels.SolicitedArmingIgnoresOthers/verbs", "an event, the receive SUCCESS", message},
    {"All/Channels.ErrorsCountAsSolicited/verbs", "an event, the receive WR_FLUSH_ERR", error},
    {0}};
