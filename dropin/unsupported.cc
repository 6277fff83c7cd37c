// SPDX-License-Identifier: Apache-2.0
// What this device has not, and what needs no device at all.
#include <fcntl.h>
#include <infiniband/sa.h>
#include <infiniband/verbs.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "dropin/errors.h"
#include "transport/log.h"

namespace {

using verbena::dropin::Fail;

// Says so, once for each.
int Unsupported(const char* what) {
  VERBENA_LOG(kWarn, "dropin", what, ": not on these devices (EOPNOTSUPP)");
  errno = EOPNOTSUPP;
  return EOPNOTSUPP;
}

}  // namespace

extern "C" {

// Nobody needs the MAC: frames are the kernel's.
int ibv_resolve_eth_l2_from_gid(ibv_context*, ibv_ah_attr*, uint8_t[6], uint16_t*) {
  return Unsupported("ibv_resolve_eth_l2_from_gid");
}

// Objects belong to their process.
ibv_context* ibv_import_device(int) { return Fail<ibv_context>(EOPNOTSUPP); }
ibv_pd* ibv_import_pd(ibv_context*, uint32_t) { return Fail<ibv_pd>(EOPNOTSUPP); }
void ibv_unimport_pd(ibv_pd*) {}
ibv_mr* ibv_import_mr(ibv_pd*, uint32_t) { return Fail<ibv_mr>(EOPNOTSUPP); }
void ibv_unimport_mr(ibv_mr*) {}
ibv_dm* ibv_import_dm(ibv_context*, uint32_t) { return Fail<ibv_dm>(EOPNOTSUPP); }
void ibv_unimport_dm(ibv_dm*) {}

ibv_mr* ibv_reg_dmabuf_mr(ibv_pd*, uint64_t, size_t, uint64_t, int, int) {
  Unsupported("ibv_reg_dmabuf_mr");
  return nullptr;
}

// Vendors agree on features with it; there are none.
int ibv_query_ece(ibv_qp*, ibv_ece* ece) {
  *ece = {};
  return EOPNOTSUPP;
}
int ibv_set_ece(ibv_qp*, ibv_ece* ece) {
  *ece = {};
  return EOPNOTSUPP;
}

struct ib_user_path_rec;

// Formats of the kernel's ucma and uverbs, which nobody speaks here.
void ibv_copy_ah_attr_from_kern(ibv_ah_attr*, ib_uverbs_ah_attr*) {}
void ibv_copy_qp_attr_from_kern(ibv_qp_attr*, ib_uverbs_qp_attr*) {}
void ibv_copy_path_rec_from_kern(ibv_sa_path_rec*, ib_user_path_rec*) {}
void ibv_copy_path_rec_to_kern(ib_user_path_rec*, ibv_sa_path_rec*) {}

// No memory is pinned, so a fork needs no preparation.
int ibv_fork_init(void) { return 0; }
ibv_fork_status ibv_is_fork_initialized(void) { return IBV_FORK_UNNEEDED; }
int ibv_dontfork_range(void*, size_t) { return 0; }
int ibv_dofork_range(void*, size_t) { return 0; }

const char* ibv_get_sysfs_path(void) { return "/sys"; }

int ibv_read_sysfs_file(const char* dir, const char* file, char* buf, size_t size) {
  const int fd = open((std::string(dir) + "/" + file).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t n = read(fd, buf, size);
  close(fd);
  if (n <= 0) return -1;
  if (buf[n - 1] == '\n') {
    buf[n - 1] = '\0';
    return static_cast<int>(n) - 1;
  }
  if (static_cast<size_t>(n) < size) buf[n] = '\0';
  return static_cast<int>(n);
}

}  // extern "C"
