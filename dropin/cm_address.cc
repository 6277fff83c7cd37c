// SPDX-License-Identifier: Apache-2.0
// Addresses of ids: which device has them, and how a peer is reached.
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "dropin/cm_id.h"
#include "dropin/errors.h"

namespace verbena::dropin {
namespace {

// From which address the kernel would send there; nothing is sent.
provider::Address SourceTowards(const provider::Address& to) {
  const int fd = socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return {};
  provider::Address there = to;
  if (there.port() == 0) there.set_port(1);
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  const bool found = connect(fd, there.raw(), there.length) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) == 0;
  close(fd);
  if (!found) return {};
  provider::Address from = provider::Address::From(reinterpret_cast<sockaddr*>(&name), length);
  from.set_port(0);
  return from;
}

void Store(const provider::Address& from, sockaddr_storage* to) {
  std::memcpy(to, &from.storage, from.length);
}

}  // namespace

void ConnectionId::SetAddresses(const provider::Address& local, const provider::Address& peer) {
  Store(local, &route.addr.src_storage);
  if (!peer.empty()) Store(peer, &route.addr.dst_storage);
  const Ip from = local.bytes();
  const Ip to = peer.empty() ? Ip{} : peer.bytes();
  rdma_ib_addr& ib = route.addr.addr.ibaddr;
  std::memcpy(ib.sgid.raw, from.data(), sizeof ib.sgid.raw);
  std::memcpy(ib.dgid.raw, to.data(), sizeof ib.dgid.raw);
  ib.pkey = 0xffff;
}

// The kernel gives an id no device for the loopback's addresses, until they are resolved
// (cma_any_addr); libfabric binds to one, and takes a device that it gets for the only one.
int ConnectionId::Bind(const sockaddr* address) {
  if (address->sa_family != AF_INET && address->sa_family != AF_INET6) return EAFNOSUPPORT;
  const provider::Address local = provider::Address::From(address);
  if (!local.is_any() && !local.is_loopback()) {
    if (const int error = Acquire(local); error != 0) return error;
  }
  SetAddresses(local, {});
  return 0;
}

int ConnectionId::Acquire(const provider::Address& local) {
  Device* const device = Device::At(local.bytes());
  if (device == nullptr) return ENODEV;
  Context* const opened = ManagerContext(device);
  if (opened == nullptr) return errno;
  verbs = &opened->context;
  port_num = 1;
  pd = ManagerDomain(opened);
  return 0;
}

int ConnectionId::Resolve(const sockaddr* source, const sockaddr* destination) {
  if (destination->sa_family != AF_INET && destination->sa_family != AF_INET6) {
    return EAFNOSUPPORT;
  }
  const provider::Address peer = provider::Address::From(destination);
  provider::Address local;
  if (source != nullptr) local = provider::Address::From(source);
  if (source == nullptr && route.addr.src_addr.sa_family != AF_UNSPEC)
    local = provider::Address::From(&route.addr.src_addr);
  if (local.empty() || local.is_any()) local = SourceTowards(peer);
  if (local.empty() || Device::At(local.bytes()) == nullptr) {
    Push(RDMA_CM_EVENT_ADDR_ERROR, -ENODEV);
    return 0;
  }
  if (const int error = Acquire(local); error != 0) return error;
  SetAddresses(local, peer);
  Push(RDMA_CM_EVENT_ADDR_RESOLVED, 0);
  return 0;
}

int ConnectionId::ResolveRoute() {
  if (verbs == nullptr || route.addr.dst_addr.sa_family == AF_UNSPEC) return EINVAL;
  path_ = {};
  path_.dgid = route.addr.addr.ibaddr.dgid;
  path_.sgid = route.addr.addr.ibaddr.sgid;
  path_.pkey = route.addr.addr.ibaddr.pkey;
  path_.reversible = 1;
  path_.numb_path = 1;
  path_.mtu_selector = 2;  // exactly (IBTA 15.2.5.16)
  path_.mtu = IBV_MTU_4096;
  route.path_rec = &path_;
  route.num_paths = 1;
  Push(RDMA_CM_EVENT_ROUTE_RESOLVED, 0);
  return 0;
}

}  // namespace verbena::dropin
