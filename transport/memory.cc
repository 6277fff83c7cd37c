// SPDX-License-Identifier: Apache-2.0
#include "transport/memory.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace verbena {
namespace {

constexpr size_t kEncodedSize = 20;

void Append(std::string& out, uint64_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
}

uint64_t Take(absl::string_view& in, size_t bytes) {
  uint64_t value = 0;
  for (char c : in.substr(0, bytes)) value = value << 8 | static_cast<unsigned char>(c);
  in.remove_prefix(bytes);
  return value;
}

}  // namespace

std::string Encode(const RemoteBuffer& buffer) {
  std::string out;
  out.reserve(kEncodedSize);
  Append(out, buffer.address, 8);
  Append(out, buffer.length, 8);
  Append(out, buffer.key, 4);
  return out;
}

absl::StatusOr<RemoteBuffer> Decode(absl::string_view bytes) {
  if (bytes.size() < kEncodedSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("remote buffer: its encoding has ", kEncodedSize, " bytes, but only ",
                     bytes.size(), " came. Does the peer send Encode(region.remote())?"));
  }
  RemoteBuffer buffer;
  buffer.address = Take(bytes, 8);
  buffer.length = Take(bytes, 8);
  buffer.key = static_cast<uint32_t>(Take(bytes, 4));
  return buffer;
}

}  // namespace verbena
