// SPDX-License-Identifier: Apache-2.0
#include "connect/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace verbena::connect {

std::optional<Ip> ParseIp(absl::string_view text) {
  const std::string zoneless(text.substr(0, text.find('%')));
  Ip ip;
  if (inet_pton(AF_INET6, zoneless.c_str(), ip.data()) == 1) return ip;
  std::memcpy(ip.data(), kMapped, sizeof kMapped);
  if (inet_pton(AF_INET, zoneless.c_str(), ip.data() + sizeof kMapped) == 1) return ip;
  return std::nullopt;
}

std::string ToText(const Ip& ip) {
  char text[INET6_ADDRSTRLEN] = "";
  if (IsV4(ip)) {
    inet_ntop(AF_INET, ip.data() + sizeof kMapped, text, sizeof text);
  } else {
    inet_ntop(AF_INET6, ip.data(), text, sizeof text);
  }
  return text;
}

std::string WithPort(const Ip& ip, uint16_t port) {
  const std::string text = ToText(ip);
  return IsV4(ip) ? absl::StrCat(text, ":", port) : absl::StrCat("[", text, "]:", port);
}

std::string HostOf(absl::string_view address) {
  absl::string_view host = address.substr(0, address.rfind(':'));
  if (host.size() >= 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return std::string(host);
}

uint16_t PortOf(absl::string_view address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port > UINT16_MAX) {
    return 0;
  }
  return static_cast<uint16_t>(port);
}

bool IsAny(const Ip& ip) { return ip == Ip{} || ip == ParseIp("0.0.0.0"); }

bool OneNetwork(const Ip& a, const Ip& b) {
  return CommonBits(a, b) >= (IsV4(a) || IsV4(b) ? 128 : 64);
}

int Nearness(const Ip& a, const Ip& b) {
  if (IsV4(a) != IsV4(b)) return -1;
  return CommonBits(a, b) - (IsV4(a) ? static_cast<int>(8 * kMappedBytes) : 0);
}

}  // namespace verbena::connect
