// SPDX-License-Identifier: Apache-2.0
#include "dropin/transitions.h"

#include <span>

namespace verbena::dropin {
namespace {

struct Row {
  ibv_qp_state from, to;
  int needs, takes;
};

constexpr int kPath = IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE;
constexpr int kRights = IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER;
constexpr int kPort = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;

constexpr Row kReliable[] = {
    {IBV_QPS_RESET, IBV_QPS_INIT, kPort, 0},
    {IBV_QPS_INIT, IBV_QPS_INIT, 0, kPort},
    {IBV_QPS_INIT, IBV_QPS_RTR,
     IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
         IBV_QP_MIN_RNR_TIMER,
     IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX},
    {IBV_QPS_RTR, IBV_QPS_RTS,
     IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
     kPath | kRights},
    {IBV_QPS_RTS, IBV_QPS_RTS, 0, kPath | kRights},
    {IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {IBV_QPS_SQD, IBV_QPS_RTS, 0, kPath | kRights},
    {IBV_QPS_SQD, IBV_QPS_SQD, 0,
     kPath | kRights | kPort | IBV_QP_AV | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
         IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_MAX_DEST_RD_ATOMIC},
};

constexpr Row kUnreliable[] = {
    {IBV_QPS_RESET, IBV_QPS_INIT, kPort, 0},
    {IBV_QPS_INIT, IBV_QPS_INIT, 0, kPort},
    {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
     IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX},
    {IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN, kPath | IBV_QP_ACCESS_FLAGS},
    {IBV_QPS_RTS, IBV_QPS_RTS, 0, kPath | IBV_QP_ACCESS_FLAGS},
    {IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {IBV_QPS_SQD, IBV_QPS_RTS, 0, kPath | IBV_QP_ACCESS_FLAGS},
    {IBV_QPS_SQD, IBV_QPS_SQD, 0, kPath | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX | IBV_QP_AV},
    {IBV_QPS_SQE, IBV_QPS_RTS, 0, IBV_QP_ACCESS_FLAGS},
};

constexpr int kDatagramPort = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY;

constexpr Row kDatagrams[] = {
    {IBV_QPS_RESET, IBV_QPS_INIT, kDatagramPort, 0},
    {IBV_QPS_INIT, IBV_QPS_INIT, 0, kDatagramPort},
    {IBV_QPS_INIT, IBV_QPS_RTR, 0, IBV_QP_PKEY_INDEX | IBV_QP_QKEY},
    {IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN, IBV_QP_QKEY},
    {IBV_QPS_RTS, IBV_QPS_RTS, 0, IBV_QP_QKEY},
    {IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {IBV_QPS_SQD, IBV_QPS_RTS, 0, IBV_QP_QKEY},
    {IBV_QPS_SQD, IBV_QPS_SQD, 0, IBV_QP_PKEY_INDEX | IBV_QP_QKEY},
    {IBV_QPS_SQE, IBV_QPS_RTS, 0, IBV_QP_QKEY},
};

std::span<const Row> RowsOf(ibv_qp_type type) {
  switch (type) {
    case IBV_QPT_UC:
      return kUnreliable;
    case IBV_QPT_UD:
      return kDatagrams;
    default:
      return kReliable;
  }
}

}  // namespace

bool MayModify(ibv_qp_type type, ibv_qp_state from, ibv_qp_state to, int mask) {
  mask &= ~(IBV_QP_STATE | IBV_QP_CUR_STATE);
  if (to == IBV_QPS_RESET || to == IBV_QPS_ERR) return mask == 0;
  for (const Row& row : RowsOf(type)) {
    if (row.from != from || row.to != to) continue;
    return (mask & row.needs) == row.needs && (mask & ~(row.needs | row.takes)) == 0;
  }
  return false;
}

}  // namespace verbena::dropin
