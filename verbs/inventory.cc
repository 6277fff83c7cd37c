// SPDX-License-Identifier: Apache-2.0
#include "verbs/inventory.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "transport/address.h"
#include "transport/ip.h"
#include "verbs/interfaces.h"
#include "verbs/resources.h"

namespace verbena::verbs {
namespace {

constexpr char kConnectionManager[] = "/dev/infiniband/rdma_cm";

const char* StateName(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "down";
    case IBV_PORT_INIT:
      return "initialising (does a subnet manager run?)";
    case IBV_PORT_ARMED:
      return "armed";
    case IBV_PORT_ACTIVE:
      return "active";
    default:
      return "in no state";
  }
}

int FamilyOf(const Gid& gid) {
  return IN6_IS_ADDR_V4MAPPED(reinterpret_cast<const in6_addr*>(gid.entry.gid.raw)) ? AF_INET
                                                                                    : AF_INET6;
}

// The bytes may be a peer's, anywhere in what it sent.
in6_addr Aligned(const uint8_t* address) {
  in6_addr v6;
  std::memcpy(&v6, address, sizeof v6);
  return v6;
}

// "0 (fe80::1 on eth0, RoCE v1), 1 (10.0.0.1 on eth0, RoCE v2)"
std::string TableText(const std::vector<Gid>& gids) {
  std::string text;
  for (const Gid& gid : gids) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", gid.entry.gid_index, " (", gid.text,
                    gid.interface.empty() ? "" : absl::StrCat(" on ", gid.interface),
                    gid.entry.gid_type == IBV_GID_TYPE_ROCE_V2   ? ", RoCE v2"
                    : gid.entry.gid_type == IBV_GID_TYPE_ROCE_V1 ? ", RoCE v1"
                                                                 : "",
                    ")");
  }
  return text.empty() ? "none" : text;
}

int Score(const Gid& gid, int family) {
  if (family != 0 && FamilyOf(gid) != family) return -1;
  int score = 0;
  if (!IsLinkLocal(std::to_array(gid.entry.gid.raw))) score += 8;
  if (!provider::MadeForGuests(gid.interface)) score += 4;
  if (gid.entry.gid_type != IBV_GID_TYPE_ROCE_V1) score += 2;
  if (FamilyOf(gid) == AF_INET) score += 1;
  return score;
}

std::string Transport(const Found& found) {
  if (found.iwarp) return "iWARP";
  if (found.port_attributes.link_layer != IBV_LINK_LAYER_ETHERNET) return "InfiniBand";
  const bool v2 = std::any_of(found.gids.begin(), found.gids.end(), [](const Gid& gid) {
    return gid.entry.gid_type == IBV_GID_TYPE_ROCE_V2;
  });
  return v2 ? "RoCE v2" : "RoCE v1";
}

Link LinkOf(const Found& found) {
  if (found.iwarp) return Link::kIwarp;
  return found.port_attributes.link_layer == IBV_LINK_LAYER_ETHERNET ? Link::kRoce
                                                                     : Link::kInfiniband;
}

// The name of the device that rdma_cm(7) would use for this local address; empty: none, and `error`
// says of what there was not enough to find out.
std::string DeviceOf(rdma_event_channel* channel, sockaddr* address, int* error) {
  rdma_cm_id* id = nullptr;
  if (Lib().create_id(channel, &id, nullptr, RDMA_PS_TCP) != 0) return "";
  std::string name;
  if (Lib().bind_addr(id, address) != 0) {
    if (errno == ENOMEM || errno == EAGAIN || errno == ENOSPC) *error = errno;
  } else if (id->verbs != nullptr) {
    name = id->verbs->device->name;
  }
  Lib().destroy_id(id);
  return name;
}

// No address led to it.
void ExplainNoAddress(Found& found, int error) {
  if (error == 0) {
    absl::StrAppend(&found.info.reason,
                    ", without an IP address to connect to. Give its network interface one "
                    "(`ip address add`)");
    return;
  }
  // librdmacm opens a device for itself and makes a protection domain on it.
  found.info.usable = false;
  found.info.reason = std::string(
      NoMore(error, "rdma_cm cannot use it", Resource::kProtectionDomain, found.attributes,
             InUse(found.info.name, Resource::kProtectionDomain), "Close what is not needed")
          .message());
}

// Interfaces of software devices that were not opened, and of no opened device.
std::vector<std::string> Spared(const std::vector<Found>& all) {
  std::vector<std::string> spared;
  for (const Found& found : all) {
    if (found.context != nullptr || !found.info.software) continue;
    for (const std::string& name : InterfacesOf(found.info.name, found.iwarp)) {
      spared.push_back(name);
    }
  }
  for (const Found& found : all) {
    if (found.context == nullptr || spared.empty()) continue;
    for (const Gid& gid : found.gids) std::erase(spared, gid.interface);
    if (!found.iwarp) continue;
    for (const std::string& name : InterfacesOf(found.info.name, true)) std::erase(spared, name);
  }
  return spared;
}

// The GID table would not do: siw's names neither addresses nor interfaces. librdmacm opens the
// device of an address for itself, and keeps it: so only what may belong to an opened one is asked.
void AssignAddresses(std::vector<Found>& all) {
  const auto opened = [](const Found& found) { return found.context != nullptr; };
  if (std::none_of(all.begin(), all.end(), opened)) return;
  const std::vector<std::string> spared = Spared(all);
  int error = 0;
  ifaddrs* list = nullptr;
  rdma_event_channel* const channel = Lib().create_event_channel();
  if (channel == nullptr || getifaddrs(&list) != 0) list = nullptr;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || (each->ifa_flags & IFF_LOOPBACK) != 0) continue;
    if (std::find(spared.begin(), spared.end(), each->ifa_name) != spared.end()) continue;
    const provider::Address address = provider::Address::From(each->ifa_addr);
    if (address.empty()) continue;
    const Ip ip = address.bytes();
    if (!IsV4(ip) && IsLinkLocal(ip)) continue;  // needs a scope
    const std::string device = DeviceOf(channel, each->ifa_addr, &error);
    for (Found& found : all) {
      if (!device.empty() && found.info.name == device) {
        AddAddress(found, ip, each->ifa_name);
      }
    }
  }
  if (list != nullptr) freeifaddrs(list);
  for (Found& found : all) {
    if (!found.info.usable || !found.info.addresses.empty()) continue;
    if (found.near_addresses.empty()) ExplainNoAddress(found, error);
  }
  if (channel != nullptr) Lib().destroy_event_channel(channel);
}

std::string RemedyFor(int error, const char* module) {
  const char* container = ", or give the container the device: `--device /dev/infiniband`";
  if (error == EACCES || error == EPERM) {
    return absl::StrCat("Add the user to the group that owns it", container);
  }
  return absl::StrCat("Load ", module, " (`modprobe ", module, "`)", container);
}

// libibverbs tries another way when it may not open the device's file, and leaves the errno of that
// way (ENOENT). So it is opened again.
std::string WhyNotOpened(int error, const ibv_device* device) {
  const std::string file = absl::StrCat("/dev/infiniband/", device->dev_name);
  const int fd = open(file.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    error = errno;
    return absl::StrCat(file, " cannot be opened (", std::strerror(error), "). ",
                        RemedyFor(error, "ib_uverbs"));
  }
  close(fd);
  if (error == EAGAIN) {  // cgroup-v2, "RDMA": the one reason for it
    return "cannot be opened: the control group of this process allows no more (rdma.max, "
           "hca_handle). Raise it";
  }
  return absl::StrCat("cannot be opened (", std::strerror(error), "). `ibv_devinfo -d ",
                      device->name, "` may say more");
}

// Fills in the first active port, else the last one's state.
std::string ExaminePorts(Found& found) {
  std::string states;
  for (uint8_t port = 1; port <= found.attributes.phys_port_cnt; ++port) {
    ibv_port_attr attributes{};
    const int error = Lib().query_port(found.context.get(), port,
                                       reinterpret_cast<_compat_ibv_port_attr*>(&attributes));
    if (error != 0) continue;
    absl::StrAppend(&states, states.empty() ? "" : ", ", "port ", port, " ",
                    StateName(attributes.state));
    if (found.port == 0 || attributes.state == IBV_PORT_ACTIVE) {
      found.port = port;
      found.port_attributes = attributes;
    }
    if (attributes.state == IBV_PORT_ACTIVE) break;
  }
  return states.empty() ? "no port answers" : states;
}

// What is known of a device before it is opened.
void Describe(const ibv_device* device, Found& found) {
  found.info.name = device->name;
  found.info.provider = "verbs";
  found.iwarp = device->transport_type == IBV_TRANSPORT_IWARP;
  found.info.transport = found.iwarp ? "iWARP" : "InfiniBand or RoCE";
  // Hardware has a link to its place on a bus.
  found.info.software = access(absl::StrCat(device->ibdev_path, "/device").c_str(), F_OK) != 0;
}

void Examine(ibv_device* device, Found& found) {
  found.context.reset(Lib().open_device(device));
  if (found.context == nullptr) {
    found.info.reason = WhyNotOpened(errno, device);
    return;
  }
  if (Lib().query_device(found.context.get(), &found.attributes) != 0) {
    found.info.reason =
        "it does not say what it can (ibv_query_device failed). Is it being removed?";
    return;
  }
  const std::string states = ExaminePorts(found);
  if (found.port != 0) {
    found.gids = ReadGids(found.context.get(), found.port,
                          static_cast<size_t>(std::max(found.port_attributes.gid_tbl_len, 1)) *
                              found.attributes.phys_port_cnt);
    found.info.transport = Transport(found);
    found.info.link = LinkOf(found);
  }
  const Gid* gid = ChooseGid(found.gids, 0);
  found.info.detail = states;
  if (gid != nullptr && !found.iwarp) {  // an iWARP device's is its MAC address
    absl::StrAppend(&found.info.detail, ", ", gid->text,
                    gid->interface.empty() ? "" : absl::StrCat(" on ", gid->interface));
  }
  if (found.port_attributes.state != IBV_PORT_ACTIVE) {
    found.info.reason = absl::StrCat("no port is active: ", states,
                                     ". Is the cable in, and the network interface up",
                                     gid == nullptr || gid->interface.empty()
                                         ? ""
                                         : absl::StrCat(" (`ip link set ", gid->interface, " up`)"),
                                     "?");
  } else if (gid == nullptr && !found.iwarp) {
    found.info.reason = "its GID table is empty. Give its network interface an address";
  } else if (access(kConnectionManager, R_OK | W_OK) != 0) {
    const int error = errno;
    found.info.reason = absl::StrCat(kConnectionManager, " cannot be opened (",
                                     std::strerror(error), "). ", RemedyFor(error, "rdma_ucm"));
  } else {
    found.info.usable = true;
    found.info.reason = found.info.software ? "a software device with an active port"
                                            : "an RDMA device with an active port";
  }
}

// "rxe0, mlx5_0": what a folder holds under names that begin so.
std::string NamesIn(const char* folder, const char* prefix) {
  std::string names;
  DIR* directory = opendir(folder);
  if (directory == nullptr) return names;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] == '.' || !absl::StartsWith(entry->d_name, prefix)) continue;
    absl::StrAppend(&names, names.empty() ? "" : ", ", entry->d_name);
  }
  closedir(directory);
  return names;
}

// libibverbs lists no device without its file, nor one without its user-space driver.
std::string WhyHidden(const std::string& devices) {
  const std::string kernel = absl::StrCat("the kernel has an RDMA device (", devices, "), ");
  if (NamesIn("/dev/infiniband", "uverbs").empty()) {
    return absl::StrCat(kernel,
                        "but no /dev/infiniband/uverbs* is there to open it. In a container: "
                        "`--device /dev/infiniband`; else load ib_uverbs (`modprobe ib_uverbs`)");
  }
  return absl::StrCat(kernel,
                      "but libibverbs has no driver for it. Install the package "
                      "ibverbs-providers (Fedora, RHEL: libibverbs)");
}

}  // namespace

std::string GidText(const uint8_t* gid) {
  char text[INET6_ADDRSTRLEN] = "?";
  const in6_addr v6 = Aligned(gid);
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    inet_ntop(AF_INET, gid + 12, text, sizeof text);
  } else {
    inet_ntop(AF_INET6, gid, text, sizeof text);
  }
  return text;
}

void AddAddress(Found& found, const Ip& address, const std::string& interface) {
  const std::string text = GidText(address.data());
  const bool first = found.info.addresses.empty() && found.near_addresses.empty();
  if (found.iwarp && first) absl::StrAppend(&found.info.detail, ", ", text, " on ", interface);
  if (provider::LeadsFar(address, interface)) {
    found.info.addresses.push_back(text);
  } else {
    found.near_addresses.push_back(absl::StrCat(text, " on ", interface));
  }
}

void SettleAddresses(Found& found, bool named) {
  if (!found.info.usable || !found.info.addresses.empty() || found.near_addresses.empty()) return;
  if (named) {
    for (const std::string& each : found.near_addresses) {
      found.info.addresses.push_back(each.substr(0, each.find(' ')));
    }
    return;
  }
  found.info.usable = false;
  found.info.reason = absl::StrCat("it has only addresses that other machines may not reach (",
                                   absl::StrJoin(found.near_addresses, ", "),
                                   "), so it is chosen only if named. Give its network interface "
                                   "another (`ip address add`)");
}

std::vector<Gid> ReadGids(ibv_context* context, uint8_t port, size_t most) {
  std::vector<ibv_gid_entry> entries(std::max<size_t>(most, 1));
  const ssize_t n =
      Lib().query_gid_table(context, entries.data(), entries.size(), 0, sizeof(ibv_gid_entry));
  std::vector<Gid> out;
  for (ssize_t i = 0; i < n; ++i) {
    const ibv_gid_entry& entry = entries[static_cast<size_t>(i)];
    if (entry.port_num != port) continue;
    char name[IF_NAMESIZE] = "";
    if (entry.ndev_ifindex != 0) (void)if_indextoname(entry.ndev_ifindex, name);
    out.push_back({entry, GidText(entry.gid.raw), name});
  }
  return out;
}

const Gid* ChooseGid(const std::vector<Gid>& gids, int family) {
  const Gid* best = nullptr;
  int best_score = -1;
  for (const Gid& gid : gids) {
    const int score = Score(gid, family);
    if (score > best_score) {
      best = &gid;
      best_score = score;
    }
  }
  return best;
}

absl::StatusOr<Gid> GidForPeers(const std::string& device, bool ethernet,
                                const std::vector<Gid>& gids, const char* wanted) {
  if (wanted != nullptr && *wanted != '\0') {
    uint32_t index = 0;
    const bool number = absl::SimpleAtoi(wanted, &index);
    for (const Gid& gid : gids) {
      if (number && gid.entry.gid_index == index && index <= UINT8_MAX) return gid;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("device ", device, ": VERBENA_GID_INDEX is `", wanted,
                     "`, and its port has no such GID; it has ", TableText(gids),
                     ". Set it to one of these numbers, or unset it."));
  }
  const Gid* best = ChooseGid(gids, 0);
  if (best == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "device ", device, ": its GID table is empty. Give its network interface an address."));
  }
  if (!ethernet || provider::LeadsFar(std::to_array(best->entry.gid.raw), best->interface)) {
    return *best;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("device ", device,
                   ": its port has only GIDs that other machines may not reach: ", TableText(gids),
                   ". Give its network interface an address, or name one with VERBENA_GID_INDEX."));
}

absl::StatusOr<std::vector<Found>> FindDevices(absl::FunctionRef<bool(const DeviceInfo&)> wanted) {
  if (const auto library = Load(); !library.ok()) return library.status();
  int count = 0;
  errno = 0;
  ibv_device** list = Lib().get_device_list(&count);
  const int error = errno;
  std::vector<Found> all;
  if (list != nullptr) {
    all.resize(static_cast<size_t>(std::max(count, 0)));
    for (int i = 0; i < count; ++i) {
      Found& found = all[static_cast<size_t>(i)];
      Describe(list[i], found);
      if (wanted(found.info)) Examine(list[i], found);
    }
    Lib().free_device_list(list);
    AssignAddresses(all);
  }
  if (!all.empty()) return all;
  const std::string hidden = NamesIn("/sys/class/infiniband", "");
  if (!hidden.empty()) return absl::NotFoundError(WhyHidden(hidden));
  return absl::NotFoundError(absl::StrCat(
      "this machine shows no RDMA device",
      list == nullptr ? absl::StrCat(" (", std::strerror(error), ")") : "",
      ". For a software one: `rdma link add rxe0 type rxe netdev eth0` (Soft-RoCE); in a "
      "container: `--device /dev/infiniband`; for hardware: is its driver loaded?"));
}

std::vector<DeviceInfo> ListDevices() {
  absl::StatusOr<std::vector<Found>> found = FindDevices([](const DeviceInfo&) { return true; });
  std::vector<DeviceInfo> out;
  if (!found.ok()) {
    DeviceInfo none;
    none.name = none.provider = "verbs";
    none.transport = "RDMA device";
    none.reason = std::string(found.status().message());
    out.push_back(std::move(none));
    return out;
  }
  for (Found& device : *found) {
    // Nobody has named a software device yet, and it is listed as usable for those who will.
    SettleAddresses(device, device.info.software);
    out.push_back(std::move(device.info));
  }
  return out;
}

}  // namespace verbena::verbs
