// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/ping_wire.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace verbena::tool {
namespace {

constexpr uint32_t kFirstLetter = 'A';
constexpr uint32_t kLetters = 'z' - 'A' + 1;

template <size_t kSize>
void Store(uint64_t value, std::array<std::byte, kSize>* out) {
  for (size_t i = kSize; i-- > 0; value >>= 8) (*out)[i] = static_cast<std::byte>(value);
}

template <size_t kSize>
uint64_t Load(const std::array<std::byte, kSize>& bytes) {
  uint64_t value = 0;
  for (std::byte byte : bytes) value = value << 8 | std::to_integer<uint64_t>(byte);
  return value;
}

}  // namespace

AdvertBytes EncodeAdvert(const RemoteBuffer& buffer) {
  AdvertBytes bytes;
  Store(buffer.address, &bytes.address);
  Store(buffer.key, &bytes.key);
  Store(buffer.length, &bytes.length);
  return bytes;
}

RemoteBuffer DecodeAdvert(const AdvertBytes& bytes) {
  return {.address = Load(bytes.address),
          .length = Load(bytes.length),
          .key = static_cast<uint32_t>(Load(bytes.key))};
}

void FillPing(uint32_t round, std::span<std::byte> out) {
  const std::string head = absl::StrCat("rdma-ping-", round, ": ");
  const size_t headed = std::min(head.size(), out.size());
  std::transform(head.begin(), head.begin() + static_cast<ptrdiff_t>(headed), out.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  uint32_t letter = round % kLetters;
  for (size_t i = headed; i < out.size(); ++i) {
    out[i] = static_cast<std::byte>(kFirstLetter + letter);
    letter = (letter + 1) % kLetters;
  }
  if (!out.empty()) out.back() = std::byte{0};
}

}  // namespace verbena::tool
