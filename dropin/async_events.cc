// SPDX-License-Identifier: Apache-2.0
// What the provider tells of queue pairs: to the context's events, or to the connection manager.
#include "dropin/connection_manager.h"
#include "dropin/context.h"
#include "dropin/queue_pair.h"

namespace verbena::dropin {

void QueuePair::OnEvent(Event event) {
  ibv_async_event out{};
  out.element.qp = qp();
  switch (event.type) {
    case EventType::kQpFatal:
      out.event_type = IBV_EVENT_QP_FATAL;
      break;
    case EventType::kQpAccessError:
      out.event_type = IBV_EVENT_QP_ACCESS_ERR;
      break;
    case EventType::kQpRequestError:
      out.event_type = IBV_EVENT_QP_REQ_ERR;
      break;
    case EventType::kCommunicationEstablished:
      out.event_type = IBV_EVENT_COMM_EST;
      break;
    case EventType::kSendQueueDrained:
      out.event_type = IBV_EVENT_SQ_DRAINED;
      break;
    case EventType::kLastWqeReached:
      out.event_type = IBV_EVENT_QP_LAST_WQE_REACHED;
      break;
    default: {
      std::lock_guard lock(manager_mutex_);
      if (manager_ != nullptr) ConnectionManager::Tell(manager_, event);
      return;
    }
  }
  Context::Of(qp_base.context)->events().Push(out);
}

}  // namespace verbena::dropin
