// SPDX-License-Identifier: Apache-2.0
// What numbers of the ABI are called, and rates.
#include "dropin/names.h"

#include <array>
#include <cstddef>

namespace {

// The name at `index`, or the last one.
template <size_t N>
const char* NameOf(const std::array<const char*, N>& names, int index) {
  return names[index < 0 || static_cast<size_t>(index) >= N - 1 ? N - 1
                                                                : static_cast<size_t>(index)];
}

constexpr std::array kNodeTypes = {"unknown",
                                   "InfiniBand channel adapter",
                                   "InfiniBand switch",
                                   "InfiniBand router",
                                   "iWARP NIC",
                                   "usNIC",
                                   "usNIC UDP",
                                   "unspecified",
                                   "unknown"};

constexpr std::array kPortStates = {"no state change (NOP)", "down",   "init", "armed", "active",
                                    "active defer",          "unknown"};

constexpr std::array kEvents = {"CQ error",
                                "local work queue catastrophic error",
                                "invalid request local work queue error",
                                "local access violation work queue error",
                                "communication established",
                                "send queue drained",
                                "path migrated",
                                "path migration request error",
                                "local catastrophic error",
                                "port active",
                                "port error",
                                "LID change",
                                "P_Key change",
                                "SM change",
                                "SRQ catastrophic error",
                                "SRQ limit reached",
                                "last WQE reached",
                                "client reregistration",
                                "GID table change",
                                "work queue fatal error",
                                "unknown"};

constexpr std::array kStatuses = {"success",
                                  "local length error",
                                  "local QP operation error",
                                  "local EE context operation error",
                                  "local protection error",
                                  "Work Request Flushed Error",
                                  "memory management operation error",
                                  "bad response error",
                                  "local access error",
                                  "remote invalid request error",
                                  "remote access error",
                                  "remote operation error",
                                  "transport retry counter exceeded",
                                  "RNR retry counter exceeded",
                                  "local RDD violation error",
                                  "remote invalid RD request",
                                  "remote abort error",
                                  "invalid EE context number",
                                  "invalid EE context state",
                                  "fatal error",
                                  "response timeout error",
                                  "general error",
                                  "tag matching error",
                                  "tag matching rendezvous incomplete",
                                  "unknown"};

struct Rate {
  ibv_rate rate;
  int mult;  // of 2.5 Gb/s
  int mbps;
};
constexpr Rate kRates[] = {
    {IBV_RATE_2_5_GBPS, 1, 2500},    {IBV_RATE_5_GBPS, 2, 5000},
    {IBV_RATE_10_GBPS, 4, 10000},    {IBV_RATE_20_GBPS, 8, 20000},
    {IBV_RATE_30_GBPS, 12, 30000},   {IBV_RATE_40_GBPS, 16, 40000},
    {IBV_RATE_60_GBPS, 24, 60000},   {IBV_RATE_80_GBPS, 32, 80000},
    {IBV_RATE_120_GBPS, 48, 120000}, {IBV_RATE_14_GBPS, -1, 14062},
    {IBV_RATE_56_GBPS, -1, 56250},   {IBV_RATE_112_GBPS, -1, 112500},
    {IBV_RATE_168_GBPS, -1, 168750}, {IBV_RATE_25_GBPS, -1, 25781},
    {IBV_RATE_100_GBPS, -1, 103125}, {IBV_RATE_200_GBPS, -1, 206250},
    {IBV_RATE_300_GBPS, -1, 309375}, {IBV_RATE_28_GBPS, -1, 28125},
    {IBV_RATE_50_GBPS, -1, 53125},   {IBV_RATE_400_GBPS, -1, 425000},
    {IBV_RATE_600_GBPS, -1, 637500},
};

}  // namespace

extern "C" {

const char* ibv_node_type_str(ibv_node_type type) { return NameOf(kNodeTypes, type); }

const char* ibv_port_state_str(ibv_port_state state) { return NameOf(kPortStates, state); }

const char* ibv_event_type_str(ibv_event_type event) { return NameOf(kEvents, event); }

const char* ibv_wc_status_str(ibv_wc_status status) { return NameOf(kStatuses, status); }

int ibv_rate_to_mult(ibv_rate rate) {
  for (const Rate& each : kRates) {
    if (each.rate == rate) return each.mult;
  }
  return -1;
}

ibv_rate mult_to_ibv_rate(int mult) {
  for (const Rate& each : kRates) {
    if (each.mult == mult && mult > 0) return each.rate;
  }
  return IBV_RATE_MAX;
}

int ibv_rate_to_mbps(ibv_rate rate) {
  for (const Rate& each : kRates) {
    if (each.rate == rate) return each.mbps;
  }
  return -1;
}

ibv_rate mbps_to_ibv_rate(int mbps) {
  for (const Rate& each : kRates) {
    if (each.mbps == mbps) return each.rate;
  }
  return IBV_RATE_MAX;
}

}  // extern "C"
