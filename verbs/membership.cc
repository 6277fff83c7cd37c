// SPDX-License-Identifier: Apache-2.0
#include "verbs/membership.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "verbs/address_handle.h"
#include "verbs/errors.h"

namespace verbena::verbs {
namespace {

// 0 or an errno. The socket has no port, so that nothing is ever queued on it.
int Join(int socket, const Ip& group, unsigned interface) {
  if (!IsV4(group)) {
    ipv6_mreq request{};
    std::memcpy(&request.ipv6mr_multiaddr, group.data(), group.size());
    request.ipv6mr_interface = interface;
    return setsockopt(socket, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &request, sizeof request) == 0
               ? 0
               : errno;
  }
  ip_mreqn request{};
  std::memcpy(&request.imr_multiaddr, group.data() + kMappedBytes, sizeof request.imr_multiaddr);
  request.imr_ifindex = static_cast<int>(interface);
  return setsockopt(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) == 0 ? 0
                                                                                          : errno;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Membership>> Membership::Begin(ibv_qp* qp, const Ip& group,
                                                              const Gid& on) {
  const std::string what = absl::StrCat("attach multicast ", GidText(group.data()));
  const int socket = ::socket(IsV4(group) ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return provider::NoDescriptor(what, errno);
  if (const int error = Join(socket, group, on.entry.ndev_ifindex); error != 0) {
    close(socket);
    return ErrnoStatus(error, absl::StrCat(what, " on ", on.interface),
                       "Is the network interface up?");
  }
  const ibv_gid gid = GidOf(group, on.entry.gid_type);
  if (const int error = Lib().attach_mcast(qp, &gid, 0); error != 0) {
    close(socket);
    return ErrnoStatus(error, what, "Detach from others, or use fewer queue pairs.");
  }
  return std::make_unique<Membership>(qp, gid, socket);
}

Membership::~Membership() {
  Lib().detach_mcast(qp_, &gid_, 0);
  close(socket_);
}

}  // namespace verbena::verbs
