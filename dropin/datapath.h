// SPDX-License-Identifier: Apache-2.0
// What inline functions of <infiniband/verbs.h> call: translation on the stack, no allocation, no
// lock of ours.
#pragma once

#include <arpa/inet.h>
#include <infiniband/verbs.h>

#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena::dropin {

int PostSend(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad);
int PostDatagrams(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad);
int PostReceive(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad);
int PostSharedReceive(ibv_srq* srq, ibv_recv_wr* wr, ibv_recv_wr** bad);
int PollCq(ibv_cq* cq, int entries, ibv_wc* out);
int RequestNotify(ibv_cq* cq, int solicited_only);

SendFlags FlagsOf(unsigned flags);  // IBV_SEND_…

inline ibv_wc_status StatusOf(WcStatus status) {
  constexpr ibv_wc_status kStatuses[] = {
      IBV_WC_SUCCESS,           IBV_WC_LOC_LEN_ERR,    IBV_WC_LOC_QP_OP_ERR, IBV_WC_LOC_PROT_ERR,
      IBV_WC_WR_FLUSH_ERR,      IBV_WC_MW_BIND_ERR,    IBV_WC_BAD_RESP_ERR,  IBV_WC_LOC_ACCESS_ERR,
      IBV_WC_REM_INV_REQ_ERR,   IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_OP_ERR,    IBV_WC_RETRY_EXC_ERR,
      IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_GENERAL_ERR,
  };
  static_assert(std::size(kStatuses) == static_cast<size_t>(WcStatus::kGeneralError) + 1);
  return kStatuses[static_cast<uint8_t>(status)];
}

inline ibv_wc_opcode OpcodeOf(const WorkCompletion& completion) {
  constexpr ibv_wc_opcode kOpcodes[] = {
      IBV_WC_SEND,      IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ,
      IBV_WC_COMP_SWAP, IBV_WC_FETCH_ADD,  IBV_WC_LOCAL_INV,
      IBV_WC_BIND_MW,   IBV_WC_RECV,       IBV_WC_RECV_RDMA_WITH_IMM,
  };
  static_assert(std::size(kOpcodes) == static_cast<size_t>(WcOpcode::kReceiveWriteWithImm) + 1);
  return kOpcodes[static_cast<uint8_t>(completion.opcode)];
}

inline unsigned FlagsOf(const WorkCompletion& completion) {
  return (completion.has_immediate ? unsigned{IBV_WC_WITH_IMM} : 0) |
         (completion.has_invalidated ? unsigned{IBV_WC_WITH_INV} : 0) |
         (completion.has_grh ? unsigned{IBV_WC_GRH} : 0);
}

// Or the key that was invalidated, which is in host order.
inline uint32_t ImmediateOf(const WorkCompletion& completion) {
  return completion.has_invalidated ? completion.immediate_or_key
                                    : htonl(completion.immediate_or_key);
}

}  // namespace verbena::dropin
