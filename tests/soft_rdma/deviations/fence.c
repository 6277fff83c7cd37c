// SPDX-License-Identifier: Apache-2.0
//
// A send that finds no receive, and behind it a read with a fence, which has to be sent again with
// it. A fence waits for the reads before it (IBTA 10.8.3.3), of which there is none.
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "probe.h"

// How often the device was refused for want of a receive.
static long refusals(struct pair* pair) {
  char path[400];
  snprintf(path, sizeof path, "%s/ports/1/hw_counters/rcvd_rnr_err",
           pair->client.id->verbs->device->ibdev_path);
  FILE* file = fopen(path, "r");
  long count = 0;
  if (file == NULL || fscanf(file, "%ld", &count) != 1) cannot("read rcvd_rnr_err");
  fclose(file);
  return count;
}

static bool sent_again(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  const long before = refusals(&pair);
  struct ibv_sge entry = piece(&pair.client, 0, 8);
  struct ibv_send_wr read = {.sg_list = &entry, .num_sge = 1};
  read.opcode = IBV_WR_RDMA_READ;
  read.send_flags = IBV_SEND_FENCE;
  read.wr.rdma.remote_addr = (uintptr_t)pair.server.bytes;
  read.wr.rdma.rkey = pair.server.mr->rkey;
  struct ibv_send_wr send = {.next = &read, .sg_list = &entry, .num_sge = 1}, *bad;
  send.opcode = IBV_WR_SEND;
  errno = ibv_post_send(pair.client.qp, &send, &bad);
  if (errno != 0) cannot("post the requests");
  const time_t until = time(NULL) + 10;
  while (refusals(&pair) == before) {
    if (time(NULL) > until) cannot("see the send refused");
  }
  post_receive(&pair.server, piece(&pair.server, 4096, 8));
  const struct ibv_wc first = wait_one(&pair.client), second = wait_one(&pair.client);
  snprintf(seen, kSeen, "send %s, read %s", status_name(first.status), status_name(second.status));
  return first.status == IBV_WC_SUCCESS && second.status == IBV_WC_SUCCESS;
}

const struct deviation deviations[] = {
    {"All/Rnr.FencedReadIsSentAgain/verbs", "send SUCCESS, read SUCCESS", sent_again}, {0}};
