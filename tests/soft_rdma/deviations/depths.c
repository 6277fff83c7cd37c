// SPDX-License-Identifier: Apache-2.0
//
// What one end may have in flight is at most what the other takes (rdma_accept(3), RFC 6581 9).
#include <stdio.h>

#include "probe.h"

static int depth_of(struct end* end) {
  struct ibv_qp_attr now;
  struct ibv_qp_init_attr made;
  if (ibv_query_qp(end->qp, &now, IBV_QP_MAX_QP_RD_ATOMIC, &made) != 0) cannot("query");
  return now.max_rd_atomic;
}

static bool depths(struct set_up how, int client, int server, char seen[kSeen]) {
  struct pair pair = connect_pair(how);
  const int ours = depth_of(&pair.client), theirs = depth_of(&pair.server);
  snprintf(seen, kSeen, "client %d, server %d", ours, theirs);
  return ours == client && theirs == server;
}

static bool server_takes_less(char seen[kSeen]) {
  return depths(
      (struct set_up){
          .connect_depth = 64, .connect_resources = 8, .accept_depth = 8, .accept_resources = 4},
      4, 8, seen);
}

const struct deviation deviations[] = {{"All/Depths.BothEndsGetTheSmaller/verbs_ServerTakesLess",
                                        "client 4, server 8", server_takes_less},
                                       {0}};
