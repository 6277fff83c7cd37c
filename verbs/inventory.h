// SPDX-License-Identifier: Apache-2.0
// Which RDMA devices this machine has, which of them this process may use, and why not the others.
// Control path; opens devices and asks them, so it may block on the driver.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "transport/capabilities.h"
#include "transport/ip.h"
#include "verbs/library.h"

namespace verbena::verbs {

struct CloseDevice {
  void operator()(ibv_context* context) const { Lib().close_device(context); }
};

// One address that a port has on the fabric.
struct Gid {
  ibv_gid_entry entry;
  std::string text;       // "10.0.0.1", "fd00::1", or the plain GID on InfiniBand
  std::string interface;  // "eth0"; empty: none
};

// The GID to use for a peer of this address family (0: any): routable before link-local, RoCE v2
// before v1 (which does not cross routers), a physical interface before bridges and container
// links. Null: none.
const Gid* ChooseGid(const std::vector<Gid>& gids, int family);

// The GID that out-of-band addresses of `device` name: the entry with the index that `wanted` says
// (VERBENA_GID_INDEX; null: unset), else the best by ChooseGid. InvalidArgument: there is no such
// entry. FailedPrecondition: on RoCE (`ethernet`), only link-local ones or ones of container links,
// which must be asked for; or none at all.
absl::StatusOr<Gid> GidForPeers(const std::string& device, bool ethernet,
                                const std::vector<Gid>& gids, const char* wanted);

std::string GidText(const uint8_t* gid);  // 16 bytes: "10.0.0.1", "fd00::1"

// Those of a port, as of now.
std::vector<Gid> ReadGids(ibv_context* context, uint8_t port, size_t most);

// A device. `info.usable` is false if `context` is null (not opened) or no port is active.
struct Found {
  DeviceInfo info;
  std::unique_ptr<ibv_context, CloseDevice> context;
  ibv_device_attr attributes{};
  ibv_port_attr port_attributes{};
  uint8_t port = 0;
  bool iwarp = false;
  std::vector<Gid> gids;  // of that port
  // IP addresses that lead to it and not far: "169.254.3.4 on eth1".
  std::vector<std::string> near_addresses;
};

// What AssignAddresses finds: an address of the device's goes to one list or the other.
void AddAddress(Found& found, const Ip& address, const std::string& interface);

// A device that has none but near addresses: whoever names it gets those; for others it is not
// usable.
void SettleAddresses(Found& found, bool named);

// Every device of the machine; opened are those that `wanted` says. It sees name and `software`.
// NotFound with the reason if there is none to list at all.
absl::StatusOr<std::vector<Found>> FindDevices(absl::FunctionRef<bool(const DeviceInfo&)> wanted);

std::vector<DeviceInfo> ListDevices();

}  // namespace verbena::verbs
