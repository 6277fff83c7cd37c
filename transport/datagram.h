// SPDX-License-Identifier: Apache-2.0
// Unreliable datagrams: where they go, and where one came from. A queue pair of QpType::kUd is
// moved to RTR and RTS without a peer. Each of its sends names an address handle, a queue pair's
// number and a Q_Key (SendWr::to); each of its receives has kGrhBytes in front of the message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "transport/handle.h"
#include "transport/options.h"
#include "transport/provider.h"

namespace verbena {

inline constexpr uint32_t kGrhBytes = 40;  // of every receive; part of WorkCompletion::length
inline constexpr uint32_t kMulticastQpNumber = 0xffffff;
inline constexpr uint32_t kOwnQkey = 0x80000000;  // the bit of Destination::qkey

// One destination. Made by ProtectionDomain::CreateAddressHandle, for queue pairs of its device.
// Any thread.
class AddressHandle : public Handle<provider::AddressHandle> {
 public:
  using Handle::Handle;
  const AddressHandleOptions& options() const { return impl_->options(); }
};

// What a receive with has_grh says of its packet. To answer, make an address handle of `source`.
struct Grh {
  std::string source = {};       // "10.0.0.1", "fe80::1"
  std::string destination = {};  // this end, or a multicast group
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 0;
};
// `grh`: the first kGrhBytes of the receive: an IPv6 header, or an IPv4 header in the last 20 bytes
// (IBTA A17.4.5.2). InvalidArgument: it is neither.
absl::StatusOr<Grh> ReadGrh(std::span<const std::byte> grh);

}  // namespace verbena
