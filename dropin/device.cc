// SPDX-License-Identifier: Apache-2.0
#include "dropin/device.h"

#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "dropin/connection_manager.h"
#include "dropin/errors.h"
#include "dropin/versions.h"
#include "transport/log.h"

namespace verbena::dropin {
namespace {

struct Found {
  std::string interface;
  provider::Address address;
  bool loopback;
};

// Not link-local ones of IPv6, which mean nothing without a zone.
std::vector<Found> Addresses() {
  std::vector<Found> out;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return out;
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owned(list, freeifaddrs);
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || (i->ifa_flags & IFF_UP) == 0) continue;
    const int family = i->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const provider::Address address = provider::Address::From(i->ifa_addr);
    if (family == AF_INET6 && IsLinkLocal(address.bytes())) continue;
    out.push_back({i->ifa_name, address, (i->ifa_flags & IFF_LOOPBACK) != 0});
  }
  std::stable_sort(out.begin(), out.end(), [](const Found& a, const Found& b) {
    return std::pair(a.loopback, a.address.family()) < std::pair(b.loopback, b.address.family());
  });
  return out;
}

std::vector<Device*> MakeAll() {
  std::vector<Device*> all;
  std::map<std::string, int> count;
  for (const Found& each : Addresses()) {
    const int n = count[each.interface]++;
    const std::string name = n == 0 ? absl::StrCat("tcp_", each.interface)
                                    : absl::StrCat("tcp_", each.interface, "_", n);
    all.push_back(new Device(name, static_cast<int>(all.size()), each.interface, each.address));
  }
  const char* const wanted = std::getenv("VERBENA_DEVICE");
  if (wanted == nullptr || std::strncmp(wanted, "tcp_", 4) != 0) return all;
  std::erase_if(all, [&](const Device* each) { return std::strcmp(each->name, wanted) != 0; });
  if (all.empty()) {
    VERBENA_LOG(kError, "dropin", "VERBENA_DEVICE names ", wanted,
                ", and no interface has an address of that name");
  }
  return all;
}

}  // namespace

const std::vector<Device*>& Device::All() {
  static const auto* const all = new std::vector<Device*>(MakeAll());
  return *all;
}

Device* Device::At(const Ip& address) {
  for (Device* each : All()) {
    if (each->ip() == address) return each;
  }
  return nullptr;
}

Device::Device(const std::string& name, int index, const std::string& interface,
               const provider::Address& address)
    : ibv_device{}, ip_(address.bytes()), address_(address), index_(index), interface_(interface) {
  _ops._dummy1 = ConnectionManager::Door;
  node_type = IBV_NODE_CA;
  transport_type = IBV_TRANSPORT_IB;
  absl::string_view(name).substr(0, sizeof this->name - 1).copy(this->name, sizeof this->name - 1);
  const std::string node = absl::StrCat("uverbs", index);
  node.copy(dev_name, sizeof dev_name - 1);
  absl::StrCat("/sys/class/infiniband_verbs/", node).copy(dev_path, sizeof dev_path - 1);
  absl::StrCat("/sys/class/infiniband/", this->name).copy(ibdev_path, sizeof ibdev_path - 1);
}

ibv_gid Device::gid() const {
  ibv_gid gid;
  std::memcpy(gid.raw, ip_.data(), sizeof gid.raw);
  return gid;
}

// Locally administered (EUI-64), and different for every address.
uint64_t Device::guid() const {
  uint8_t bytes[8];
  for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = ip_[i] ^ ip_[i + 8];
  bytes[0] = 0x02;
  uint64_t guid;
  std::memcpy(&guid, bytes, sizeof guid);
  return guid;
}

}  // namespace verbena::dropin

using verbena::dropin::Device;

extern "C" {

#undef ibv_get_device_list
ibv_device** ibv_get_device_list(int* num_devices) {
  const std::vector<Device*>& all = Device::All();
  if (num_devices != nullptr) *num_devices = static_cast<int>(all.size());
  auto** const list = static_cast<ibv_device**>(std::calloc(all.size() + 1, sizeof(ibv_device*)));
  if (list == nullptr) return verbena::dropin::Fail<ibv_device*>(ENOMEM);
  std::copy(all.begin(), all.end(), list);
  return list;
}

void ibv_free_device_list(ibv_device** list) { std::free(list); }

const char* ibv_get_device_name(ibv_device* device) { return device->name; }

int ibv_get_device_index(ibv_device* device) { return Device::Of(device)->index(); }

__be64 ibv_get_device_guid(ibv_device* device) { return Device::Of(device)->guid(); }

}  // extern "C"

USUAL_1_1(ibv_free_device_list);
USUAL_1_1(ibv_get_device_guid);
USUAL_1_1(ibv_get_device_list);
USUAL_1_1(ibv_get_device_name);
