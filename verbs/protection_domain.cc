// SPDX-License-Identifier: Apache-2.0
#include "verbs/protection_domain.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "transport/log.h"
#include "verbs/address_handle.h"
#include "verbs/datagram_queue_pair.h"
#include "verbs/memlock.h"
#include "verbs/queue_pair.h"
#include "verbs/shared_receive_queue.h"
#include "verbs/unreliable_queue_pair.h"

namespace verbena::verbs {
namespace {

absl::Status RegisterRefused(int error, std::span<std::byte> memory, Access access,
                             const Device& device) {
  const uint64_t first = reinterpret_cast<uint64_t>(memory.data());
  const std::string what =
      absl::StrCat("register [0x", absl::Hex(first), ", 0x", absl::Hex(first + memory.size()), ")");
  if (error == EFAULT || error == EINVAL) {
    return ErrnoStatus(
        error, absl::StrCat(what, " on device ", device.name()),
        absl::StrCat("Not all of it is host memory that this process may read",
                     Allows(access, Access::kLocalWrite) ? " and write" : "",
                     ": something there is unmapped, protected, or a device's. Memory of a GPU "
                     "needs dma-buf or peer memory, which are not supported; copy it through host "
                     "memory."));
  }
  return device.Refused(error, what, Resource::kMemoryRegion,
                        "Register less, or close regions that are not needed.");
}

// siw goes on placing the segment that it has begun when its region is closed
// (Linux 6.1 siw_mem.c siw_mr_drop_mem waits for nobody). It does so where RCU looks for readers,
// in a softirq or under a spinlock (siw_qp.c siw_qp_llp_data_ready), and this waits until all are
// through.
void AwaitReceivePath(const Device& device) {
  if (!device.iwarp() || !device.software()) return;
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) return;
  static std::atomic_flag told;
  if (told.test_and_set()) return;
  VERBENA_LOG(kWarn, "verbs", "close memory region on device ", device.name(),
              ": membarrier(2): ", std::strerror(errno),
              "; the device may go on writing to closed memory for some "
              "milliseconds. Is the call filtered, or the kernel's nohz_full set?");
}

}  // namespace

int AccessFlags(Access access, const Capabilities& capabilities) {
  int flags = 0;
  if (Allows(access, Access::kLocalWrite)) flags |= IBV_ACCESS_LOCAL_WRITE;
  if (Allows(access, Access::kRemoteWrite)) flags |= IBV_ACCESS_REMOTE_WRITE;
  if (Allows(access, Access::kRemoteRead)) flags |= IBV_ACCESS_REMOTE_READ;
  if (Allows(access, Access::kRemoteAtomic) && capabilities.atomics) {
    flags |= IBV_ACCESS_REMOTE_ATOMIC;
  }
  if (Allows(access, Access::kWindowBind) && capabilities.memory_windows) {
    flags |= IBV_ACCESS_MW_BIND;
  }
  return flags;
}

absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> ProtectionDomain::Create(
    Device* device) {
  const std::string what = "allocate protection domain";
  const char* const remedy = "Close some that are not needed, here or in other processes.";
  if (device->iwarp()) {
    if (absl::Status s = CheckPinnable(what, IwarpDomain::kLockedPages); !s.ok()) return s;
  }
  ibv_pd* pd = Lib().alloc_pd(device->context());
  if (pd == nullptr) return device->Refused(errno, what, Resource::kProtectionDomain, remedy);
  auto domain = std::make_unique<ProtectionDomain>(device, pd);
  if (domain->iwarp() != nullptr || !device->iwarp()) return domain;
  const int error = errno;
  Lib().dealloc_pd(pd);
  if (absl::Status s = PinRefused(what, IwarpDomain::kLockedPages, error); !s.ok()) return s;
  return device->Refused(error, what, Resource::kMemoryRegion, remedy);
}

ProtectionDomain::ProtectionDomain(Device* device, ibv_pd* pd)
    : device_(device), pd_(pd), iwarp_(device->iwarp() ? IwarpDomain::Create(pd) : nullptr) {
  device_->children().Add();
}

ProtectionDomain::~ProtectionDomain() { device_->children().Remove(); }

absl::Status ProtectionDomain::Close() {
  if (absl::Status s = children_.CheckNone("protection domain"); !s.ok()) return s;
  iwarp_.reset();
  spent_handles_.DestroyAll();
  if (const int error = Lib().dealloc_pd(pd_); error != 0) {
    return ErrnoStatus(error, "close protection domain", "Is an object made from it still open?");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> ProtectionDomain::Register(
    std::span<std::byte> memory, Access access, const RegisterOptions& options) {
  const uint64_t first =
      options.iova != 0 ? options.iova : reinterpret_cast<uint64_t>(memory.data());
  if (absl::Status s = provider::CheckMemory(memory, access, options); !s.ok()) return s;
  const DeviceAttributes limits = device_->attributes();
  if (absl::Status s =
          CheckLimit("region bytes", memory.size(), limits.max_region, device_->name());
      !s.ok()) {
    return s;
  }
  const std::string what = absl::StrCat("register ", memory.size(), " bytes");
  const uint64_t pages = LockedPages(memory.data(), memory.size());
  if (absl::Status s = CheckPinnable(what, pages); !s.ok()) return s;
  const int flags = AccessFlags(access, device_->capabilities());
  ibv_mr* mr = options.iova != 0
                   ? Lib().reg_mr_iova(pd_, memory.data(), memory.size(), first, flags)
                   : Lib().reg_mr(pd_, memory.data(), memory.size(), flags);
  if (mr != nullptr) return std::make_unique<MemoryRegion>(this, mr, first, access);
  const int error = errno;
  if (absl::Status s = PinRefused(what, pages, error); !s.ok()) return s;
  return RegisterRefused(error, memory, access, *device_);
}

absl::StatusOr<std::unique_ptr<provider::MemoryWindow>> ProtectionDomain::AllocateWindow() {
  if (!device_->capabilities().memory_windows) {
    return absl::UnimplementedError(absl::StrCat("allocate memory window: device ", device_->name(),
                                                 " has none of type 2. Lend a region instead."));
  }
  ibv_mw* mw = ibv_alloc_mw(pd_, IBV_MW_TYPE_2);
  if (mw != nullptr) return std::make_unique<MemoryWindow>(this, mw);
  return device_->Refused(errno, "allocate memory window", Resource::kMemoryWindow,
                          "Close windows that are not needed.");
}

absl::StatusOr<std::unique_ptr<provider::QueuePair>> ProtectionDomain::CreateQueuePair(
    const QueuePairOptions& options) {
  const Capabilities can = device_->capabilities();
  if (options.type == QpType::kRc) return QueuePair::Create(this, options);
  const bool datagrams = options.type == QpType::kUd;
  if (!(datagrams ? can.unreliable_datagram : can.unreliable_connection)) {
    return absl::UnimplementedError(
        absl::StrCat("create queue pair: of type ", QpTypeName(options.type),
                     " there are none on device ", device_->name(), " (capabilities().",
                     datagrams ? "unreliable_datagram)" : "unreliable_connection)"));
  }
  return datagrams ? DatagramQueuePair::Create(this, options)
                   : UnreliableConnection::Create(this, options);
}

absl::StatusOr<std::unique_ptr<provider::AddressHandle>> ProtectionDomain::CreateAddressHandle(
    const AddressHandleOptions& options) {
  if (device_->capabilities().unreliable_datagram) return AddressHandle::Create(this, options);
  return provider::ProtectionDomain::CreateAddressHandle(options);  // refuses
}

absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>>
ProtectionDomain::CreateSharedReceiveQueue(const SrqOptions& options) {
  return SharedReceiveQueue::Create(this, options);
}

MemoryRegion::MemoryRegion(ProtectionDomain* domain, ibv_mr* mr, uint64_t first, Access access)
    : domain_(domain),
      mr_(mr),
      first_(first),
      length_(mr->length),
      access_(access),
      local_key_(mr->lkey),
      remote_key_(mr->rkey) {
  if (domain_->iwarp() != nullptr) domain_->iwarp()->Add(*mr_, first_, access_);
  domain_->children().Add();
  domain_->CountRegistration();
  domain_->device()->counts().regions.fetch_add(1);
  domain_->device()->counts().registered_bytes.fetch_add(length_);
}

absl::Status MemoryRegion::Close() {
  if (const int n = binds_.count(); n > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("close memory region: ", n,
                     " binds of windows to it are posted and not complete; wait for "
                     "their completions"));
  }
  IwarpDomain* const iwarp = domain_->iwarp();
  // Before the device may give the key to another region.
  ibv_mr* const sink = iwarp != nullptr ? iwarp->Remove(local_key_) : nullptr;
  const int error = Lib().dereg_mr(mr_);
  if (error == 0) {
    if (sink != nullptr) Lib().dereg_mr(sink);
    if (Allows(access_, Access::kLocalWrite)) AwaitReceivePath(*domain_->device());
    return absl::OkStatus();
  }
  if (iwarp != nullptr) iwarp->Add(*mr_, first_, access_, sink);
  // ibv_dereg_mr(3): a region with bound windows stays (EBUSY; EINVAL from some drivers).
  return absl::FailedPreconditionError(
      absl::StrCat("close memory region: the device refuses (errno ", error,
                   "): windows are bound to it; invalidate or close them first"));
}

MemoryRegion::~MemoryRegion() {
  domain_->device()->counts().regions.fetch_sub(1);
  domain_->device()->counts().registered_bytes.fetch_sub(length_);
  domain_->children().Remove();
}

MemoryWindow::MemoryWindow(ProtectionDomain* domain, ibv_mw* mw) : domain_(domain), mw_(mw) {
  domain_->children().Add();
}

absl::Status MemoryWindow::Close() {
  if (binds_.count() > 0) {
    return absl::FailedPreconditionError(
        "close memory window: a bind of it is posted and not complete; wait for its completion");
  }
  if (const int error = ibv_dealloc_mw(mw_); error != 0) {
    return ErrnoStatus(error, "close memory window", "Invalidate it first.");
  }
  return absl::OkStatus();
}

MemoryWindow::~MemoryWindow() { domain_->children().Remove(); }

RemoteBuffer MemoryWindow::remote() const {
  const std::lock_guard lock(mutex_);
  return remote_;
}

// ibv_post_send(3) leaves it to the caller to keep the window's key up to date.
void MemoryWindow::Announce(uint64_t address, uint64_t length, uint32_t key) {
  const std::lock_guard lock(mutex_);
  mw_->rkey = key;
  remote_ = {address, length, key};
  ++posted_;
}

// What peers do with it a device tells nobody.
WindowCounters MemoryWindow::counters() const {
  const std::lock_guard lock(mutex_);
  return {.binds = posted_};
}

DomainCounters ProtectionDomain::counters() const {
  return {.objects = static_cast<uint64_t>(children_.count()),
          .registrations = registrations_.load(std::memory_order_relaxed)};
}

}  // namespace verbena::verbs
