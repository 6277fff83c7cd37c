// SPDX-License-Identifier: Apache-2.0
// Memory windows of both types (IBTA 10.6.7.2). 24 bits of their keys are random, 8 are the
// program's (ibv_inc_rkey): of type 2 it says so in each bind, of type 1 the library counts.
#pragma once

#include <infiniband/verbs.h>

#include <memory>

#include "fallback/protection_domain.h"
#include "transport/protection_domain.h"
#include "transport/work_request.h"

namespace verbena::dropin {

class MemoryWindow final : public ibv_mw {
 public:
  static MemoryWindow* Of(ibv_mw* mw) { return static_cast<MemoryWindow*>(mw); }
  // What ibv_context_ops has.
  static ibv_mw* Allocate(ibv_pd* pd, ibv_mw_type type);
  static int Free(ibv_mw* mw);
  static int Bind(ibv_qp* qp, ibv_mw* mw, ibv_mw_bind* bind);

  // The bind as a request, which names a key: the window takes it for the next post, so that a
  // call posts one bind at the most.
  void Translate(uint32_t key, const ibv_mw_bind_info& info, SendWr* out);

 private:
  MemoryWindow(ibv_pd* pd, ibv_mw_type type, std::unique_ptr<fallback::MemoryWindow> window);

  fallback::MemoryWindow* const fast_;
  verbena::MemoryWindow window_;
  ibv_mr* lender_ = nullptr;  // type 1: of the last bind, while it lends
};

}  // namespace verbena::dropin
