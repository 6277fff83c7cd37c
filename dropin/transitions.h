// SPDX-License-Identifier: Apache-2.0
// Which attributes ibv_modify_qp(3) needs and takes for which transition of a queue pair of its
// type: IBTA 11.2.5.2, table 91; the same as the kernel's ib_modify_qp_is_ok().
#pragma once

#include <infiniband/verbs.h>

namespace verbena::dropin {

// IBV_QP_STATE and IBV_QP_CUR_STATE aside.
bool MayModify(ibv_qp_type type, ibv_qp_state from, ibv_qp_state to, int mask);

}  // namespace verbena::dropin
