// SPDX-License-Identifier: Apache-2.0
// The queue pair's states (IBTA 10.3.1) and what can be asked of and set on one. Plain values.
#pragma once

#include <cstdint>
#include <optional>

#include "transport/access.h"

namespace verbena {

enum class QpState : uint8_t { kReset, kInit, kRtr, kRts, kSqd, kSqe, kErr };
inline constexpr int kQpStateCount = 7;
const char* QpStateName(QpState state);  // "RTS"

// kRc: reliable, connected to one peer. kUd: unreliable datagrams to any, see datagram.h. kUc:
// connected, and unreliable: what a peer does not take is lost, and nobody says so. It has sends
// and writes alone.
enum class QpType : uint8_t { kRc, kUd, kUc };
const char* QpTypeName(QpType type);  // "RC"

// Sizes of one queue pair. At creation what is asked for (0: the default), afterwards what it got,
// which is never less.
struct QpLimits {
  uint32_t max_send_wr = 128;
  uint32_t max_receive_wr = 128;
  uint32_t max_send_sge = 4;
  uint32_t max_receive_sge = 4;
  uint32_t max_inline = 256;  // bytes
};

// QueuePair::Modify: what is set is changed, the rest stays. Which state may follow which, and
// which attribute may be set in which state, is ibv_modify_qp(3)'s table; a refusal names both.
// RNR, retries and timeout are kRc's alone; a kUd has no access.
struct QpModify {
  std::optional<QpState> state = {};
  std::optional<Access> access = {};  // what peers may do at all (remote bits only)
  // IBTA code 0–31: what this end asks refused peers to wait.
  std::optional<uint8_t> min_rnr_timer = {};
  std::optional<uint8_t> rnr_retry = {};    // 0–7, 7: for ever
  std::optional<uint8_t> retry_count = {};  // 0–7
  // Code: 4.096 µs × 2^timeout, × (retry_count + 1) in all.
  std::optional<uint8_t> timeout = {};
  std::optional<uint32_t> qkey = {};  // kUd: what datagrams must carry to be taken here
};

struct QpAttributes {
  QpState state = QpState::kReset;
  QpType type = QpType::kRc;
  QpLimits limits = {};
  Access access = Access::kLocalRead;
  uint32_t qp_number = 0;
  uint32_t peer_qp_number = 0;  // 0: not known on this provider
  uint8_t min_rnr_timer = 0;
  uint8_t rnr_retry = 0;
  uint8_t retry_count = 0;
  uint8_t timeout = 0;
  uint32_t qkey = 0;                 // kUd
  uint8_t traffic_class = 0;         // in force; 0: the system's, or nobody knows (no such bit)
  uint32_t initiator_depth = 0;      // ORD: reads and atomics of ours in flight, as negotiated
  uint32_t responder_resources = 0;  // IRD: the peer's that we take at once
  uint32_t send_outstanding = 0;     // posted and not complete
  bool draining = false;             // SQD and not yet drained
};

}  // namespace verbena
