// SPDX-License-Identifier: Apache-2.0
//
// A read of a region that does not grant remote reads (IBTA 9.4.4, RFC 5040 5.4.2).
#include <stdio.h>
#include <string.h>

#include "probe.h"

static bool read_with(int rights, char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  memset(pair.server.bytes, 0x5a, 64);
  struct ibv_mr* region = ibv_reg_mr(pair.server.qp->pd, pair.server.bytes, 4096, rights);
  if (region == NULL) {  // iWARP has no atomics
    region =
        ibv_reg_mr(pair.server.qp->pd, pair.server.bytes, 4096, rights & ~IBV_ACCESS_REMOTE_ATOMIC);
  }
  if (region == NULL) cannot("register memory");
  post_send(&pair.client, IBV_WR_RDMA_READ, piece(&pair.client, 0, 8), (uintptr_t)pair.server.bytes,
            region->rkey);
  const struct ibv_wc wc = wait_one(&pair.client);
  snprintf(seen, kSeen, "%s%s", status_name(wc.status),
           pair.client.bytes[0] == 0x5a ? ", the bytes are read" : "");
  return wc.status != IBV_WC_SUCCESS && pair.client.bytes[0] == 0;
}

static bool none(char seen[kSeen]) { return read_with(0, seen); }
static bool local(char seen[kSeen]) { return read_with(IBV_ACCESS_LOCAL_WRITE, seen); }
static bool remote_write(char seen[kSeen]) {
  return read_with(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, seen);
}
static bool atomic(char seen[kSeen]) {
  return read_with(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC, seen);
}
static bool write_atomic(char seen[kSeen]) {
  return read_with(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
                   seen);
}

const struct deviation deviations[] = {
    {"All/AccessRights.RegionGrantsOrRefuses/verbs_Read_", "an error, no byte is read", none},
    {"All/AccessRights.RegionGrantsOrRefuses/verbs_Read_Local", "an error, no byte is read", local},
    {"All/AccessRights.RegionGrantsOrRefuses/verbs_Read_LocalWrite", "an error, no byte is read",
     remote_write},
    {"All/AccessRights.RegionGrantsOrRefuses/verbs_Read_LocalAtomic", "an error, no byte is read",
     atomic},
    {"All/AccessRights.RegionGrantsOrRefuses/verbs_Read_LocalWriteAtomic",
     "an error, no byte is read", write_atomic},
    {0}};
