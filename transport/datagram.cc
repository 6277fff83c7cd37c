// SPDX-License-Identifier: Apache-2.0
#include "transport/datagram.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>
#include <memory>

#include "absl/status/status.h"

namespace verbena {
namespace {

constexpr size_t kV4Begins = 20;

std::string Text(int family, const std::byte* bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(family, bytes, text, sizeof(text));
  return text;
}

absl::Status NoDatagrams(const char* what) {
  return absl::UnimplementedError(
      std::string(what) +
      ": this needs unreliable datagrams (capabilities().unreliable_datagram, QpType::kUd)");
}

}  // namespace

absl::StatusOr<Grh> ReadGrh(std::span<const std::byte> grh) {
  if (grh.size() < kGrhBytes) return absl::InvalidArgumentError("GRH: fewer than 40 bytes");
  const auto byte = [&](size_t at) { return std::to_integer<uint8_t>(grh[at]); };
  Grh out;
  // RFC 8200 3: the first byte has the version and half of the traffic class.
  if (byte(0) >> 4 == 6) {
    out.traffic_class = static_cast<uint8_t>(byte(0) << 4 | byte(1) >> 4);
    out.hop_limit = byte(7);
    // A mapped address is IPv4's, which has a header of its own: but devices may not know.
    out.source = Text(AF_INET6, &grh[8]);
    out.destination = Text(AF_INET6, &grh[24]);
    return out;
  }
  if (byte(kV4Begins) != 0x45) {  // RFC 791 3.1: version 4, and no options
    return absl::InvalidArgumentError("GRH: neither an IPv6 nor an IPv4 header");
  }
  out.traffic_class = byte(kV4Begins + 1);
  out.hop_limit = byte(kV4Begins + 8);
  out.source = Text(AF_INET, &grh[kV4Begins + 12]);
  out.destination = Text(AF_INET, &grh[kV4Begins + 16]);
  return out;
}

namespace provider {

absl::Status QueuePair::AttachMulticast(const std::string&) {
  return NoDatagrams("attach multicast");
}

absl::Status QueuePair::DetachMulticast(const std::string&) {
  return NoDatagrams("detach multicast");
}

absl::StatusOr<std::unique_ptr<AddressHandle>> ProtectionDomain::CreateAddressHandle(
    const AddressHandleOptions&) {
  return NoDatagrams("create address handle");
}

}  // namespace provider
}  // namespace verbena
