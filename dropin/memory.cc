// SPDX-License-Identifier: Apache-2.0
#include "dropin/memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "dropin/context.h"
#include "dropin/errors.h"
#include "dropin/versions.h"

namespace verbena::dropin {
namespace {

// The five that change what may be done have the same bits in both. Of the others optional ones may
// be ignored (ibv_reg_mr(3)), and so may on-demand paging and huge pages: no memory is pinned.
constexpr unsigned kRights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                             IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND;
constexpr unsigned kKnown = kRights | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_ON_DEMAND |
                            IBV_ACCESS_HUGETLB | IBV_ACCESS_OPTIONAL_RANGE;
static_assert(kRights == static_cast<unsigned>(Access::kLocalWrite | Access::kRemoteWrite |
                                               Access::kRemoteRead | Access::kRemoteAtomic |
                                               Access::kWindowBind));

// Of the first and the last byte; a device would pin all pages between them. The kernel looks:
// PROT_NONE is no memory, and neither is a GPU's. Where it may not be asked, all counts as memory.
bool IsMemory(std::byte* first, size_t length) {
  char bytes[2];
  const iovec here{bytes, sizeof bytes};
  const iovec there[] = {{first, 1}, {first + length - 1, 1}};
  const ssize_t n = process_vm_readv(getpid(), &here, 1, there, 2, 0);
  return n == ssize_t{sizeof bytes} || (n < 0 && errno != EFAULT);
}

// As the kernel answers, which checks the arguments before it looks at the memory.
int CheckArguments(void* address, size_t length, unsigned int access) {
  constexpr unsigned kWrites = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
  if ((access & ~kKnown) != 0 || length == 0) return EINVAL;
  if ((access & kWrites) != 0 && (access & IBV_ACCESS_LOCAL_WRITE) == 0) return EINVAL;
  return IsMemory(static_cast<std::byte*>(address), length) ? 0 : EFAULT;
}

}  // namespace

ProtectionDomain::ProtectionDomain(ibv_context* context,
                                   std::unique_ptr<provider::ProtectionDomain> domain)
    : ibv_pd{}, held_(context), domain_(std::move(domain)) {
  this->context = context;
  handle = this->domain().number();
}

int MemoryRegion::Lend(ibv_pd* pd, void* address, size_t length, uint64_t iova,
                       unsigned int access) {
  if (const int error = CheckArguments(address, length, access); error != 0) return error;
  absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> region =
      ProtectionDomain::Of(pd)->domain().RegisterAt(
          {static_cast<std::byte*>(address), length}, static_cast<Access>(access & kRights),
          (access & IBV_ACCESS_ZERO_BASED) != 0 ? 0 : iova);
  // What is left to be wrong is the memory: it wraps around, or is mapped for reading only.
  if (absl::IsInvalidArgument(region.status())) return EFAULT;
  if (!region.ok()) return ErrnoOf(region.status());
  // The former one first: it may refuse.
  if (const absl::Status s = region_.Close(); !s.ok()) {
    (void)(*region)->Close();
    return ErrnoOf(s);
  }
  region_ = verbena::MemoryRegion(*std::move(region));
  access_ = access;
  this->context = pd->context;
  this->pd = pd;
  this->addr = address;
  this->length = length;
  lkey = region_.local_key();
  rkey = region_.remote_key();
  handle = lkey;
  return 0;
}

ibv_mr* MemoryRegion::Register(ibv_pd* pd, void* address, size_t length, uint64_t iova,
                               unsigned int access) {
  auto* const mr = new MemoryRegion;
  const int error = mr->Lend(pd, address, length, iova, access);
  if (error == 0) return mr;
  delete mr;
  return Fail<ibv_mr>(error);
}

ibv_mr* MemoryRegion::Null(ibv_pd*) { return Fail<ibv_mr>(EOPNOTSUPP); }

int MemoryRegion::Change(ibv_pd* pd, std::optional<std::span<std::byte>> memory,
                         std::optional<unsigned int> access) {
  const std::span<std::byte> now =
      memory.value_or(std::span(static_cast<std::byte*>(addr), length));
  const uint64_t iova = memory ? reinterpret_cast<uint64_t>(now.data()) : region_.address();
  return Lend(pd != nullptr ? pd : this->pd, now.data(), now.size(), iova,
              access.value_or(access_));
}

int MemoryRegion::Deregister() {
  if (const absl::Status s = region_.Close(); !s.ok()) return ErrnoOf(s);
  delete this;
  return 0;
}

}  // namespace verbena::dropin

using verbena::dropin::Context;
using verbena::dropin::ErrnoOf;
using verbena::dropin::Fail;
using verbena::dropin::MemoryRegion;
using verbena::dropin::ProtectionDomain;

extern "C" {

ibv_pd* ibv_alloc_pd(ibv_context* context) {
  if (Context::Of(context)->disabled()) return Fail<ibv_pd>(EIO);
  auto domain = Context::Of(context)->process().device().AllocateProtectionDomain();
  if (!domain.ok()) return Fail<ibv_pd>(ErrnoOf(domain.status()));
  return new ProtectionDomain(context, *std::move(domain));
}

int ibv_dealloc_pd(ibv_pd* pd) {
  if (Context::Of(pd->context)->disabled()) return EIO;
  if (const absl::Status s = ProtectionDomain::Of(pd)->domain().Close(); !s.ok()) {
    return ErrnoOf(s);
  }
  delete ProtectionDomain::Of(pd);
  return 0;
}

#undef ibv_reg_mr
ibv_mr* ibv_reg_mr(ibv_pd* pd, void* address, size_t length, int access) {
  return ibv_reg_mr_iova2(pd, address, length, reinterpret_cast<uint64_t>(address),
                          static_cast<unsigned>(access));
}

#undef ibv_reg_mr_iova
ibv_mr* ibv_reg_mr_iova(ibv_pd* pd, void* address, size_t length, uint64_t iova, int access) {
  return ibv_reg_mr_iova2(pd, address, length, iova, static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr_iova2(ibv_pd* pd, void* address, size_t length, uint64_t iova,
                         unsigned int access) {
  if (Context::Of(pd->context)->disabled()) return Fail<ibv_mr>(EIO);
  return MemoryRegion::Register(pd, address, length, iova, access);
}

int ibv_rereg_mr(ibv_mr* mr, int flags, ibv_pd* pd, void* address, size_t length, int access) {
  constexpr int kAll =
      IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS;
  int error = 0;
  if ((flags & ~kAll) != 0 || flags == 0) error = EINVAL;
  if ((flags & IBV_REREG_MR_CHANGE_TRANSLATION) != 0 && (address == nullptr || length == 0)) {
    error = EINVAL;
  }
  if (Context::Of(mr->context)->disabled()) error = EIO;
  if (error == 0) {
    std::optional<std::span<std::byte>> memory;
    std::optional<unsigned> rights;
    if ((flags & IBV_REREG_MR_CHANGE_TRANSLATION) != 0) {
      memory.emplace(static_cast<std::byte*>(address), length);
    }
    if ((flags & IBV_REREG_MR_CHANGE_ACCESS) != 0) rights = static_cast<unsigned>(access);
    error = MemoryRegion::Of(mr)->Change((flags & IBV_REREG_MR_CHANGE_PD) != 0 ? pd : nullptr,
                                         memory, rights);
  }
  if (error == 0) return 0;
  errno = error;
  return error == EINVAL ? IBV_REREG_MR_ERR_INPUT : IBV_REREG_MR_ERR_CMD;
}

int ibv_dereg_mr(ibv_mr* mr) {
  if (mr == nullptr) return EINVAL;
  if (Context::Of(mr->context)->disabled()) return EIO;
  return MemoryRegion::Of(mr)->Deregister();
}

}  // extern "C"

USUAL_1_1(ibv_alloc_pd);
USUAL_1_1(ibv_dealloc_pd);
USUAL_1_1(ibv_dereg_mr);
USUAL_1_1(ibv_reg_mr);
