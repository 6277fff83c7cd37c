// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/foreign.h"

#include <cstring>
#include <string_view>

#include "fallback/wire/bytes.h"

namespace verbena::engine {

namespace {

constexpr std::string_view kMagic = "VerbConf";

struct Tail {
  char magic[8] = {};
  wire::Be64 address;
  wire::Be32 key;
};
static_assert(wire::WireStruct<Tail> && sizeof(Tail) == 20);
static_assert(offsetof(Tail, address) == 8 && offsetof(Tail, key) == 16);

}  // namespace

std::optional<LentBytes> TakeLentBytes(std::span<const std::byte>* private_data) {
  if (private_data->size() < sizeof(Tail)) return std::nullopt;
  const size_t application = private_data->size() - sizeof(Tail);
  const auto tail = wire::Load<Tail>(private_data->data() + application);
  if (std::memcmp(tail.magic, kMagic.data(), kMagic.size()) != 0) return std::nullopt;
  *private_data = private_data->first(application);
  return LentBytes{tail.address, tail.key};
}

}  // namespace verbena::engine
