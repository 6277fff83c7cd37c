// SPDX-License-Identifier: Apache-2.0
// Kinds of events.
#pragma once

#include <infiniband/verbs.h>

namespace verbena::dropin {

// Else of a completion queue, a shared receive queue, or a port.
inline bool IsOfQueuePair(ibv_event_type type) {
  switch (type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      return true;
    default:
      return false;
  }
}

}  // namespace verbena::dropin
