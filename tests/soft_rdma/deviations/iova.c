// SPDX-License-Identifier: Apache-2.0
//
// A region whose address for peers is chosen (ibv_reg_mr_iova(3)).
#include <stdio.h>

#include "probe.h"

enum { kIova = 0x10000 };

static bool write_to_iova(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  struct ibv_mr* region = ibv_reg_mr_iova(pair.server.qp->pd, pair.server.bytes, 4096, kIova,
                                          IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
  if (region == NULL) cannot("register memory with an iova");
  pair.client.bytes[0] = 0x5a;
  post_receive(&pair.server, piece(&pair.server, 8192, 8));
  post_send(&pair.client, IBV_WR_RDMA_WRITE, piece(&pair.client, 0, 8), kIova + 100, region->rkey);
  // Where a write's completion is local, the message behind it tells that it arrived.
  post_send(&pair.client, IBV_WR_SEND, piece(&pair.client, 0, 8), 0, 0);
  const struct ibv_wc received = wait_one(&pair.server);
  const bool placed = pair.server.bytes[100] == 0x5a;
  snprintf(seen, kSeen, "%s, the message behind it: %s",
           placed ? "the bytes arrive" : "the bytes do not arrive", status_name(received.status));
  return placed && received.status == IBV_WC_SUCCESS;
}

const struct deviation deviations[] = {
    {"All/Keys.IovaIsWhatPeersUse/verbs", "the bytes arrive", write_to_iova}, {0}};
