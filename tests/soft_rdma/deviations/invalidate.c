// SPDX-License-Identifier: Apache-2.0
//
// Who may invalidate what: no peer the key of a memory region (IBTA 9.4.1: it is for windows, and
// for regions that were made with a fast registration); and a window of type 2B only the queue pair
// that it was bound on, and its peer (IBTA 10.6.7.2.6).
#include <stdio.h>
#include <string.h>

#include "probe.h"

static bool region(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  post_receive(&pair.server, piece(&pair.server, 0, 8));
  post_send(&pair.client, IBV_WR_SEND_WITH_INV, piece(&pair.client, 0, 8), 0, pair.server.mr->rkey);
  const struct ibv_wc sent = wait_one(&pair.client), received = wait_one(&pair.server);
  snprintf(seen, kSeen, "sender %s, receiver %s", status_name(sent.status),
           status_name(received.status));
  return sent.status == IBV_WC_REM_ACCESS_ERR;
}

// Whether the client can still read through the window.
static const char* still_works(struct pair* pair, uint32_t key) {
  post_send(&pair->client, IBV_WR_RDMA_READ, piece(&pair->client, 0, 8),
            (uintptr_t)pair->server.bytes, key);
  return wait_one(&pair->client).status == IBV_WC_SUCCESS ? "works on" : "is dead";
}

static bool local_elsewhere(char seen[kSeen]) {
  struct pair bound = connect_pair((struct set_up){0}), other = connect_pair((struct set_up){0});
  const uint32_t key = bind_window(&bound.server, 0, 4096);
  post_send(&other.server, IBV_WR_LOCAL_INV, piece(&other.server, 0, 0), 0, key);
  const struct ibv_wc wc = wait_one(&other.server);
  const char* window = still_works(&bound, key);
  snprintf(seen, kSeen, "%s, the window %s", status_name(wc.status), window);
  return wc.status != IBV_WC_SUCCESS && strcmp(window, "works on") == 0;
}

static bool peer_elsewhere(char seen[kSeen]) {
  struct pair bound = connect_pair((struct set_up){0}), other = connect_pair((struct set_up){0});
  const uint32_t key = bind_window(&bound.server, 0, 4096);
  post_receive(&other.server, piece(&other.server, 8192, 8));
  post_send(&other.client, IBV_WR_SEND_WITH_INV, piece(&other.client, 0, 8), 0, key);
  const struct ibv_wc wc = wait_one(&other.client);
  const char* window = still_works(&bound, key);
  snprintf(seen, kSeen, "%s, the window %s", status_name(wc.status), window);
  return wc.status == IBV_WC_REM_ACCESS_ERR && strcmp(window, "works on") == 0;
}

const struct deviation deviations[] = {
    {"All/Windows.InvalidatingARegionIsRefused/verbs", "sender REM_ACCESS_ERR", region},
    {"All/Windows.AnotherQueuePairCannotInvalidate/verbs", "an error, the window works on",
     local_elsewhere},
    {"All/Windows.PeerOfAnotherQueuePairCannotInvalidate/verbs",
     "REM_ACCESS_ERR, the window works on", peer_elsewhere},
    {0}};
