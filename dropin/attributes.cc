// SPDX-License-Identifier: Apache-2.0
#include "dropin/attributes.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "dropin/context.h"
#include "dropin/errors.h"
#include "dropin/versions.h"

namespace verbena::dropin {
namespace {

constexpr uint8_t kPort = 1;
constexpr uint16_t kDefaultPkey = 0xffff;
constexpr uint8_t kWidth4 = 2, kSpeedEdr = 32;  // IBTA 14.2.5.6: software has none, programs print
constexpr uint8_t kLinkUp = 5;
constexpr int kMostReads = 128;  // ibv_qp_attr counts them in a byte

int Most(uint64_t limit) { return static_cast<int>(std::min<uint64_t>(limit, INT32_MAX)); }

ibv_device_attr Attributes(const Device& device) {
  const DeviceAttributes limits = fallback::Device::Attributes();
  ibv_device_attr a{};
  a.fw_ver[0] = '0';
  a.node_guid = a.sys_image_guid = device.guid();
  a.max_mr_size = UINT64_MAX;
  a.page_size_cap = 0xfffff000;
  a.max_qp = Most(limits.max_queue_pairs);
  a.max_qp_wr = Most(limits.max_work_requests);
  a.device_cap_flags = IBV_DEVICE_CURR_QP_STATE_MOD | IBV_DEVICE_RC_RNR_NAK_GEN |
                       IBV_DEVICE_MEM_MGT_EXTENSIONS | IBV_DEVICE_MEM_WINDOW |
                       IBV_DEVICE_MEM_WINDOW_TYPE_2B;
  a.max_sge = a.max_sge_rd = a.max_srq_sge = Most(limits.max_sge);
  a.max_cq = Most(limits.max_completion_queues);
  a.max_cqe = Most(limits.max_completions);
  a.max_mr = Most(limits.max_memory_regions);
  a.max_mw = Most(limits.max_memory_windows);
  a.max_pd = 1 << 20;
  a.max_qp_rd_atom = a.max_qp_init_rd_atom = kMostReads;
  a.max_res_rd_atom = Most(uint64_t{kMostReads} * limits.max_queue_pairs);
  a.atomic_cap = IBV_ATOMIC_HCA;  // global ones UCX 1.13 takes for none
  a.max_srq = Most(limits.max_shared_receive_queues);
  a.max_srq_wr = Most(limits.max_work_requests);
  a.max_ah = 1 << 20;
  a.max_mcast_grp = a.max_mcast_qp_attach = a.max_total_mcast_qp_attach = 1 << 16;
  a.max_pkeys = 1;
  a.phys_port_cnt = 1;
  return a;
}

}  // namespace

uint64_t Timestamp() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

int QueryPort(ibv_context*, uint8_t port, ibv_port_attr* attr, size_t size) {
  if (port != kPort) return EINVAL;
  ibv_port_attr a{};
  a.state = IBV_PORT_ACTIVE;
  a.max_mtu = a.active_mtu = IBV_MTU_4096;
  a.gid_tbl_len = 1;
  a.port_cap_flags = IBV_PORT_CM_SUP;
  a.max_msg_sz = 1u << 31;
  a.pkey_tbl_len = 1;
  a.max_vl_num = 1;
  a.active_width = kWidth4;
  a.active_speed = kSpeedEdr;
  a.phys_state = kLinkUp;
  a.link_layer = IBV_LINK_LAYER_ETHERNET;
  a.flags = IBV_QPF_GRH_REQUIRED;
  std::memset(attr, 0, size);
  std::memcpy(attr, &a, std::min(size, sizeof a));
  return 0;
}

int QueryDeviceEx(ibv_context* context, const ibv_query_device_ex_input* input,
                  ibv_device_attr_ex* attr, size_t size) {
  if (input != nullptr && input->comp_mask != 0) return EINVAL;
  if (size < sizeof attr->orig_attr) return EINVAL;
  ibv_device_attr_ex a{};
  a.orig_attr = Attributes(Context::Of(context)->device());
  a.completion_timestamp_mask = UINT64_MAX;
  a.hca_core_clock = kClockKhz;
  a.device_cap_flags_ex = a.orig_attr.device_cap_flags;
  a.phys_port_cnt_ex = 1;
  std::memset(attr, 0, size);
  std::memcpy(attr, &a, std::min(size, sizeof a));
  return 0;
}

int QueryRealTime(ibv_context*, ibv_values_ex* values) {
  const uint32_t wanted = values->comp_mask;
  values->comp_mask = 0;
  if ((wanted & IBV_VALUES_MASK_RAW_CLOCK) != 0) {
    clock_gettime(CLOCK_MONOTONIC, &values->raw_clock);
    values->comp_mask = IBV_VALUES_MASK_RAW_CLOCK;
  }
  return 0;
}

}  // namespace verbena::dropin

using verbena::dropin::Context;

extern "C" {

int ibv_query_device(ibv_context* context, ibv_device_attr* attr) {
  *attr = verbena::dropin::Attributes(Context::Of(context)->device());
  return 0;
}

// Programs from before there was a link layer in it have a shorter struct.
#undef ibv_query_port
int ibv_query_port(ibv_context* context, uint8_t port, _compat_ibv_port_attr* attr) {
  constexpr size_t kLegacy = offsetof(ibv_port_attr, port_cap_flags2);
  static_assert(kLegacy == 48);
  return verbena::dropin::QueryPort(context, port, reinterpret_cast<ibv_port_attr*>(attr), kLegacy);
}

int ibv_query_gid(ibv_context* context, uint8_t port, int index, ibv_gid* gid) {
  if (port != 1 || index != 0) return verbena::dropin::FailWith(EINVAL);
  *gid = Context::Of(context)->device().gid();
  return 0;
}

int _ibv_query_gid_ex(ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* entry,
                      uint32_t flags, size_t size) {
  if (port != 1 || index != 0 || flags != 0) return EINVAL;
  ibv_gid_entry e{};
  e.gid = Context::Of(context)->device().gid();
  e.port_num = 1;
  e.gid_type = IBV_GID_TYPE_ROCE_V2;
  std::memset(entry, 0, size);
  std::memcpy(entry, &e, std::min(size, sizeof e));
  return 0;
}

ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* entries, size_t max,
                             uint32_t flags, size_t size) {
  if (flags != 0) return -EINVAL;
  if (max == 0) return 0;
  const int error = _ibv_query_gid_ex(context, 1, 0, entries, 0, size);
  return error != 0 ? -error : 1;
}

int ibv_query_pkey(ibv_context*, uint8_t port, int index, __be16* pkey) {
  if (port != 1 || index != 0) return verbena::dropin::FailWith(EINVAL);
  *pkey = htons(verbena::dropin::kDefaultPkey);
  return 0;
}

int ibv_get_pkey_index(ibv_context*, uint8_t port, __be16 pkey) {
  return port == 1 && pkey == htons(verbena::dropin::kDefaultPkey) ? 0 : -1;
}

}  // extern "C"

USUAL_1_1(ibv_query_device);
USUAL_1_1(ibv_query_gid);
USUAL_1_1(ibv_query_pkey);
USUAL_1_1(ibv_query_port);
