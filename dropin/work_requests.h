// SPDX-License-Identifier: Apache-2.0
// Posting as ibv_wr_start(3) does: requests are built one call at a time, and posted together.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <mutex>
#include <vector>

#include "transport/work_request.h"

namespace verbena::dropin {

class QueuePair;

bool TakesOperations(uint64_t flags);  // of IBV_QP_EX_WITH_…
void SetOperations(QueuePair* qp);     // the functions that programs call through

// What is being built. From Start to Complete or Abort it is one thread's (ibv_wr_start(3)).
class WorkRequests {
 public:
  void Start(const QueuePair& qp);
  SendWr& Add(const ibv_qp_ex& qp, Opcode opcode);
  void AddBind(const ibv_qp_ex& qp, ibv_mw* mw, uint32_t key, const ibv_mw_bind_info& info);
  void SetSges(size_t count, const ibv_sge* list);
  void SetInline(size_t count, const ibv_data_buf* list);
  void SetDestination(const Destination& to) { requests_.back().to = to; }
  int Complete(QueuePair* qp);
  void Abort(const QueuePair& qp);

 private:
  struct Local {
    size_t first = 0;  // among sges_
    size_t count = 0;
    size_t data = 0;  // among inline_, if it is inline
    bool is_inline = false;
    ibv_mw* window = nullptr;  // of a bind
    uint32_t key = 0;
    ibv_mw_bind_info bind = {};
  };
  std::mutex mutex_;
  std::vector<SendWr> requests_;
  std::vector<Local> locals_;
  std::vector<Sge> sges_;
  std::vector<std::byte> inline_;
};

}  // namespace verbena::dropin
