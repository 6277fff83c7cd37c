// SPDX-License-Identifier: Apache-2.0
// The layouts that programs were compiled with, as rdma-core 34 to 65 have them on x86-64: the
// headers that this is built with must say the same.
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <cstddef>

#include "dropin/completion.h"
#include "dropin/context.h"
#include "dropin/device.h"
#include "dropin/memory.h"
#include "dropin/queue_pair.h"
#include "dropin/shared_receive_queue.h"

#if defined(__x86_64__)
static_assert(sizeof(ibv_device) == 664);
static_assert(sizeof(ibv_context) == 328);
static_assert(sizeof(verbs_context) == 648);
static_assert(offsetof(verbs_context, sz) == 312);
static_assert(offsetof(verbs_context, context) == 320);
static_assert(offsetof(ibv_context, ops) + offsetof(ibv_context_ops, poll_cq) == 96);
static_assert(offsetof(ibv_context, ops) + offsetof(ibv_context_ops, req_notify_cq) == 104);
static_assert(offsetof(ibv_context, ops) + offsetof(ibv_context_ops, post_srq_recv) == 168);
static_assert(offsetof(ibv_context, ops) + offsetof(ibv_context_ops, post_send) == 208);
static_assert(offsetof(ibv_context, ops) + offsetof(ibv_context_ops, post_recv) == 216);
static_assert(offsetof(ibv_context, cmd_fd) == 264);
static_assert(offsetof(ibv_context, async_fd) == 268);
static_assert(sizeof(ibv_qp_ex) == 352 || sizeof(ibv_qp_ex) == 360);  // wr_atomic_write: 42 and on
static_assert(sizeof(ibv_cq_ex) == 288);
static_assert(sizeof(ibv_wc) == 48);
static_assert(sizeof(ibv_sge) == 16);
static_assert(sizeof(ibv_send_wr) == 128);
static_assert(sizeof(ibv_recv_wr) == 32);
static_assert(sizeof(rdma_cm_id) == 416);
static_assert(sizeof(rdma_cm_event) == 80);
#endif

namespace verbena::dropin {

// An object is found again from the struct that it begins with.
static_assert(offsetof(ibv_qp_ex, qp_base) == 0);
static_assert(offsetof(ibv_cq_ex, comp_mask) >= sizeof(ibv_cq) - alignof(ibv_cq));

}  // namespace verbena::dropin
