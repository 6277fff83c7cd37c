// SPDX-License-Identifier: Apache-2.0
//
// A send that is to invalidate the key of a memory region, which no peer may (IBTA 9.4.1: it is
// for windows, and for regions that were made with a fast registration).
#include <stdio.h>

#include "probe.h"

static bool region(char seen[kSeen]) {
  struct pair pair = connect_pair(false);
  post_receive(&pair.server, piece(&pair.server, 0, 8));
  post_send(&pair.client, IBV_WR_SEND_WITH_INV, piece(&pair.client, 0, 8), 0, pair.server.mr->rkey);
  const struct ibv_wc sent = wait_one(&pair.client), received = wait_one(&pair.server);
  snprintf(seen, kSeen, "sender %s, receiver %s", status_name(sent.status),
           status_name(received.status));
  return sent.status == IBV_WC_REM_ACCESS_ERR;
}

const struct deviation deviations[] = {
    {"All/Windows.InvalidatingARegionIsRefused/verbs", "sender REM_ACCESS_ERR", region}, {0}};
