// SPDX-License-Identifier: Apache-2.0
//
// An RDMA read whose first local entry is good, and whose second has a key that does not exist.
// IBTA leaves open whether the first entry is filled; we check the whole list first.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "probe.h"

static bool read_placed(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  memset(pair.server.bytes, 0x5a, 64);
  struct ibv_sge entries[] = {piece(&pair.client, 0, 8), piece(&pair.client, 4096, 8)};
  entries[1].lkey ^= 0x00ffff00;
  struct ibv_send_wr wr = {.sg_list = entries, .num_sge = 2, .opcode = IBV_WR_RDMA_READ}, *bad;
  wr.wr.rdma.remote_addr = (uintptr_t)pair.server.bytes;
  wr.wr.rdma.rkey = pair.server.mr->rkey;
  errno = ibv_post_send(pair.client.qp, &wr, &bad);
  if (errno != 0) cannot("post the read");
  const struct ibv_wc wc = wait_one(&pair.client);
  const bool placed = pair.client.bytes[0] != 0;
  snprintf(seen, kSeen, "%s, %s placed", status_name(wc.status),
           placed ? "the first entry's bytes are" : "no byte is");
  return wc.status == IBV_WC_LOC_PROT_ERR && !placed;
}

const struct deviation deviations[] = {
    {"All/LocalProtection.RequestFailsInItsTurn/verbs_ReadSecondEntry",
     "LOC_PROT_ERR, no byte is placed", read_placed},
    {0}};
