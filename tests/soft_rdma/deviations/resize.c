// SPDX-License-Identifier: Apache-2.0
//
// A completion queue is made larger (IBTA 11.2.8.3, ibv_resize_cq(3)).
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "probe.h"

static bool resized(char seen[kSeen]) {
  struct pair pair = connect_pair((struct set_up){0});
  const int status = ibv_resize_cq(pair.server.cq, 200);
  snprintf(seen, kSeen, "%s", status == 0 ? "resized" : strerror(status < 0 ? errno : status));
  return status == 0;
}

const struct deviation deviations[] = {
    {"All/Completions.UnpolledCompletionsKeepTheirPlaces/verbs", "resized", resized},
    {"All/Completions.ResizeKeepsWhatIsThere/verbs", "resized", resized},
    {"All/Completions.ResizeUnderTraffic/verbs", "resized", resized},
    {0}};
