// SPDX-License-Identifier: Apache-2.0
// Symbols that must be there for programs to start, and that programs do not call, but for one.
//
// Private ones: libraries of vendors (libmlx5, libefa, libmlx4), which perftest and UCX are linked
// with, import them by the version of the rdma-core that they were built with. No device of theirs
// is ever in the list. Versions 1.0: the ABI before 2006.
#include <cerrno>
#include <cstdint>

extern "C" {

int verbena_no_system(void) { return ENOSYS; }
int verbena_failed(void) { return -1; }
void* verbena_null(void) { return nullptr; }
// This one programs do call: ibv_devinfo and perftest. 1: RoCE v2.
int verbena_query_gid_type(void*, uint8_t port, unsigned index, int* type) {
  if (port != 1 || index != 0) return -1;
  *type = 1;
  return 0;
}
extern const bool verbena_false;
const bool verbena_false = false;

}  // extern "C"

// A symbol has one version, so each gets a name of its own, which the version script hides.
#define ALIAS(target, name, version, own)        \
  asm(".globl " #own "\n.set " #own ", " #target \
      "\n"                                       \
      ".symver " #own ", " #name version)
#define PRIVATE(target, name)                             \
  ALIAS(target, name, "@@IBVERBS_PRIVATE_34", name##_34); \
  ALIAS(target, name, "@IBVERBS_PRIVATE_57", name##_57);  \
  ALIAS(target, name, "@IBVERBS_PRIVATE_59", name##_59);  \
  ALIAS(target, name, "@IBVERBS_PRIVATE_64", name##_64);  \
  ALIAS(target, name, "@IBVERBS_PRIVATE_65", name##_65)

ALIAS(verbena_no_system, ibv_ack_async_event, "@IBVERBS_1.0", ibv_ack_async_event_1_0);
ALIAS(verbena_no_system, ibv_ack_cq_events, "@IBVERBS_1.0", ibv_ack_cq_events_1_0);
ALIAS(verbena_null, ibv_alloc_pd, "@IBVERBS_1.0", ibv_alloc_pd_1_0);
ALIAS(verbena_no_system, ibv_attach_mcast, "@IBVERBS_1.0", ibv_attach_mcast_1_0);
ALIAS(verbena_no_system, ibv_close_device, "@IBVERBS_1.0", ibv_close_device_1_0);
ALIAS(verbena_null, ibv_create_ah, "@IBVERBS_1.0", ibv_create_ah_1_0);
ALIAS(verbena_null, ibv_create_cq, "@IBVERBS_1.0", ibv_create_cq_1_0);
ALIAS(verbena_null, ibv_create_qp, "@IBVERBS_1.0", ibv_create_qp_1_0);
ALIAS(verbena_null, ibv_create_srq, "@IBVERBS_1.0", ibv_create_srq_1_0);
ALIAS(verbena_no_system, ibv_dealloc_pd, "@IBVERBS_1.0", ibv_dealloc_pd_1_0);
ALIAS(verbena_no_system, ibv_dereg_mr, "@IBVERBS_1.0", ibv_dereg_mr_1_0);
ALIAS(verbena_no_system, ibv_destroy_ah, "@IBVERBS_1.0", ibv_destroy_ah_1_0);
ALIAS(verbena_no_system, ibv_destroy_cq, "@IBVERBS_1.0", ibv_destroy_cq_1_0);
ALIAS(verbena_no_system, ibv_destroy_qp, "@IBVERBS_1.0", ibv_destroy_qp_1_0);
ALIAS(verbena_no_system, ibv_destroy_srq, "@IBVERBS_1.0", ibv_destroy_srq_1_0);
ALIAS(verbena_no_system, ibv_detach_mcast, "@IBVERBS_1.0", ibv_detach_mcast_1_0);
ALIAS(verbena_no_system, ibv_free_device_list, "@IBVERBS_1.0", ibv_free_device_list_1_0);
ALIAS(verbena_no_system, ibv_get_async_event, "@IBVERBS_1.0", ibv_get_async_event_1_0);
ALIAS(verbena_no_system, ibv_get_cq_event, "@IBVERBS_1.0", ibv_get_cq_event_1_0);
ALIAS(verbena_no_system, ibv_get_device_guid, "@IBVERBS_1.0", ibv_get_device_guid_1_0);
ALIAS(verbena_null, ibv_get_device_list, "@IBVERBS_1.0", ibv_get_device_list_1_0);
ALIAS(verbena_null, ibv_get_device_name, "@IBVERBS_1.0", ibv_get_device_name_1_0);
ALIAS(verbena_no_system, ibv_modify_qp, "@IBVERBS_1.0", ibv_modify_qp_1_0);
ALIAS(verbena_no_system, ibv_modify_srq, "@IBVERBS_1.0", ibv_modify_srq_1_0);
ALIAS(verbena_null, ibv_open_device, "@IBVERBS_1.0", ibv_open_device_1_0);
ALIAS(verbena_no_system, ibv_query_device, "@IBVERBS_1.0", ibv_query_device_1_0);
ALIAS(verbena_no_system, ibv_query_gid, "@IBVERBS_1.0", ibv_query_gid_1_0);
ALIAS(verbena_no_system, ibv_query_pkey, "@IBVERBS_1.0", ibv_query_pkey_1_0);
ALIAS(verbena_no_system, ibv_query_port, "@IBVERBS_1.0", ibv_query_port_1_0);
ALIAS(verbena_no_system, ibv_query_qp, "@IBVERBS_1.0", ibv_query_qp_1_0);
ALIAS(verbena_no_system, ibv_query_srq, "@IBVERBS_1.0", ibv_query_srq_1_0);
ALIAS(verbena_null, ibv_reg_mr, "@IBVERBS_1.0", ibv_reg_mr_1_0);
ALIAS(verbena_no_system, ibv_resize_cq, "@IBVERBS_1.0", ibv_resize_cq_1_0);
ALIAS(verbena_no_system, ibv_register_driver, "@IBVERBS_1.1", ibv_register_driver_1_1);

PRIVATE(verbena_no_system, __ioctl_final_num_attrs);
PRIVATE(verbena_no_system, __verbs_log);
PRIVATE(verbena_null, _verbs_init_and_alloc_context);
PRIVATE(verbena_no_system, execute_ioctl);
PRIVATE(verbena_no_system, ibv_cmd_advise_mr);
PRIVATE(verbena_no_system, ibv_cmd_alloc_dm);
PRIVATE(verbena_no_system, ibv_cmd_alloc_mw);
PRIVATE(verbena_no_system, ibv_cmd_alloc_pd);
PRIVATE(verbena_no_system, ibv_cmd_attach_mcast);
PRIVATE(verbena_no_system, ibv_cmd_close_xrcd);
PRIVATE(verbena_no_system, ibv_cmd_create_ah);
PRIVATE(verbena_no_system, ibv_cmd_create_counters);
PRIVATE(verbena_no_system, ibv_cmd_create_cq);
PRIVATE(verbena_no_system, ibv_cmd_create_cq_ex);
PRIVATE(verbena_no_system, ibv_cmd_create_flow);
PRIVATE(verbena_no_system, ibv_cmd_create_flow_action_esp);
PRIVATE(verbena_no_system, ibv_cmd_create_qp);
PRIVATE(verbena_no_system, ibv_cmd_create_qp_ex);
PRIVATE(verbena_no_system, ibv_cmd_create_qp_ex2);
PRIVATE(verbena_no_system, ibv_cmd_create_rwq_ind_table);
PRIVATE(verbena_no_system, ibv_cmd_create_srq);
PRIVATE(verbena_no_system, ibv_cmd_create_srq_ex);
PRIVATE(verbena_no_system, ibv_cmd_create_wq);
PRIVATE(verbena_no_system, ibv_cmd_dealloc_mw);
PRIVATE(verbena_no_system, ibv_cmd_dealloc_pd);
PRIVATE(verbena_no_system, ibv_cmd_dereg_mr);
PRIVATE(verbena_no_system, ibv_cmd_destroy_ah);
PRIVATE(verbena_no_system, ibv_cmd_destroy_counters);
PRIVATE(verbena_no_system, ibv_cmd_destroy_cq);
PRIVATE(verbena_no_system, ibv_cmd_destroy_flow);
PRIVATE(verbena_no_system, ibv_cmd_destroy_flow_action);
PRIVATE(verbena_no_system, ibv_cmd_destroy_qp);
PRIVATE(verbena_no_system, ibv_cmd_destroy_rwq_ind_table);
PRIVATE(verbena_no_system, ibv_cmd_destroy_srq);
PRIVATE(verbena_no_system, ibv_cmd_destroy_wq);
PRIVATE(verbena_no_system, ibv_cmd_detach_mcast);
PRIVATE(verbena_no_system, ibv_cmd_free_dm);
PRIVATE(verbena_no_system, ibv_cmd_get_context);
PRIVATE(verbena_no_system, ibv_cmd_modify_cq);
PRIVATE(verbena_no_system, ibv_cmd_modify_flow_action_esp);
PRIVATE(verbena_no_system, ibv_cmd_modify_qp);
PRIVATE(verbena_no_system, ibv_cmd_modify_qp_ex);
PRIVATE(verbena_no_system, ibv_cmd_modify_srq);
PRIVATE(verbena_no_system, ibv_cmd_modify_wq);
PRIVATE(verbena_no_system, ibv_cmd_open_qp);
PRIVATE(verbena_no_system, ibv_cmd_open_xrcd);
PRIVATE(verbena_no_system, ibv_cmd_poll_cq);
PRIVATE(verbena_no_system, ibv_cmd_post_recv);
PRIVATE(verbena_no_system, ibv_cmd_post_send);
PRIVATE(verbena_no_system, ibv_cmd_post_srq_recv);
PRIVATE(verbena_no_system, ibv_cmd_query_context);
PRIVATE(verbena_no_system, ibv_cmd_query_device_any);
PRIVATE(verbena_no_system, ibv_cmd_query_mr);
PRIVATE(verbena_no_system, ibv_cmd_query_port);
PRIVATE(verbena_no_system, ibv_cmd_query_qp);
PRIVATE(verbena_no_system, ibv_cmd_query_srq);
PRIVATE(verbena_no_system, ibv_cmd_read_counters);
PRIVATE(verbena_no_system, ibv_cmd_reg_dm_mr);
PRIVATE(verbena_no_system, ibv_cmd_reg_dmabuf_mr);
PRIVATE(verbena_no_system, ibv_cmd_reg_mr);
PRIVATE(verbena_no_system, ibv_cmd_req_notify_cq);
PRIVATE(verbena_no_system, ibv_cmd_rereg_mr);
PRIVATE(verbena_no_system, ibv_cmd_resize_cq);
PRIVATE(verbena_query_gid_type, ibv_query_gid_type);
PRIVATE(verbena_failed, ibv_read_ibdev_sysfs_file);
PRIVATE(verbena_false, verbs_allow_disassociate_destroy);
PRIVATE(verbena_no_system, verbs_init_cq);
PRIVATE(verbena_null, verbs_open_device);
PRIVATE(verbena_no_system, verbs_register_driver_34);
PRIVATE(verbena_no_system, verbs_set_ops);
PRIVATE(verbena_no_system, verbs_uninit_context);
