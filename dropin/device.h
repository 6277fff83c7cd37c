// SPDX-License-Identifier: Apache-2.0
// The devices that programs see: one for each IP address of this machine, loopback last. Made when
// the list is first asked for, and there for ever.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <string>
#include <vector>

#include "transport/address.h"
#include "transport/ip.h"

namespace verbena::dropin {

class Device final : public ibv_device {
 public:
  // All, or the one that the environment's VERBENA_DEVICE names.
  static const std::vector<Device*>& All();
  static Device* At(const Ip& address);  // null: no device has it
  static Device* Of(ibv_device* device) { return static_cast<Device*>(device); }

  Device(const std::string& name, int index, const std::string& interface,
         const provider::Address& address);

  const Ip& ip() const { return ip_; }
  const provider::Address& address() const { return address_; }  // port 0
  ibv_gid gid() const;
  uint64_t guid() const;  // as it is stored: big-endian
  int index() const { return index_; }
  const std::string& interface() const { return interface_; }

 private:
  // Libraries of vendors look for marks of their own right behind the struct (mlx5dv_is_supported,
  // efadv_query_device), and find none.
  std::byte behind_[512] = {};
  const Ip ip_;
  const provider::Address address_;
  const int index_;
  const std::string interface_;
};

}  // namespace verbena::dropin
