// SPDX-License-Identifier: Apache-2.0
//
// A window of type 2 over 4096 bytes in the middle of a region; the peer reaches outside of it
// with the window's key (IBTA 10.6.7.2: it has bounds of its own).
#include <stdio.h>

#include "probe.h"

enum { kFirst = 8192, kWindow = 4096 };

static bool outside(enum ibv_wr_opcode opcode, int64_t offset, char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  const uint32_t key = bind_window(&pair.server, kFirst, kWindow);
  post_send(&pair.client, opcode, piece(&pair.client, 0, 8),
            (uintptr_t)pair.server.bytes + kFirst + (uint64_t)offset, key);
  const struct ibv_wc wc = wait_one(&pair.client);
  snprintf(seen, kSeen, "%s", status_name(wc.status));
  return wc.status == IBV_WC_REM_ACCESS_ERR;
}

static bool one_past(char seen[kSeen]) { return outside(IBV_WR_RDMA_WRITE, kWindow - 7, seen); }
static bool behind(char seen[kSeen]) { return outside(IBV_WR_RDMA_READ, kWindow, seen); }
static bool before(char seen[kSeen]) { return outside(IBV_WR_RDMA_READ, -1, seen); }

const struct deviation deviations[] = {
    {"All/WindowRights.WindowHasItsOwnRightsAndBounds/verbs_OnePast", "REM_ACCESS_ERR", one_past},
    {"All/WindowRights.WindowHasItsOwnRightsAndBounds/verbs_Behind", "REM_ACCESS_ERR", behind},
    {"All/WindowRights.WindowHasItsOwnRightsAndBounds/verbs_Before", "REM_ACCESS_ERR", before},
    {0}};
