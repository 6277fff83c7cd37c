// SPDX-License-Identifier: Apache-2.0
// Shared receive queues, of the basic kind only.
#pragma once

#include <infiniband/verbs.h>

#include "dropin/acknowledged.h"
#include "transport/shared_receive_queue.h"

namespace verbena::dropin {

class SharedReceiveQueue final : public ibv_srq {
 public:
  static SharedReceiveQueue* Of(ibv_srq* srq) { return static_cast<SharedReceiveQueue*>(srq); }
  // Null, with errno set.
  static ibv_srq* Create(ibv_pd* pd, void* srq_context, const ibv_srq_attr& attr);
  static ibv_srq* CreateExtended(ibv_context* context, ibv_srq_init_attr_ex* attr);
  static int Number(ibv_srq* srq, uint32_t* number);

  int Destroy();
  void OnLimit();

  provider::SharedReceiveQueue& queue() { return *handle_.impl(); }
  verbena::SharedReceiveQueue* handle_of() { return &handle_; }
  Acknowledged& events() { return events_; }

 private:
  SharedReceiveQueue() : ibv_srq{} {}

  verbena::SharedReceiveQueue handle_;
  Acknowledged events_;
};

}  // namespace verbena::dropin
