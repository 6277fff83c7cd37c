// SPDX-License-Identifier: Apache-2.0
// Out-of-band addresses, as they came or with their length and CRC put right, and what two ends
// choose from them.
#include <algorithm>
#include <string>

#include "fallback/wire/crc32c.h"
#include "tests/fuzz/input.h"
#include "transport/out_of_band.h"

namespace verbena::fuzz {
namespace {

constexpr size_t kLengthAt = 9, kFixed = 11, kCrc = 4;  // transport/out_of_band.cc

// A sender that knows the format: the CRC keeps nobody out.
std::string PutRight(std::span<const std::byte> content) {
  std::string out(reinterpret_cast<const char*>(content.data()), content.size());
  if (out.size() < kFixed) return out;
  const size_t length = out.size() + kCrc;
  out[kLengthAt] = static_cast<char>(length >> 8);
  out[kLengthAt + 1] = static_cast<char>(length);
  const uint32_t crc = wire::Crc32cFinish(
      wire::Crc32c(wire::kCrcBegin, std::as_bytes(std::span(out.data(), out.size()))));
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(crc >> shift);
  return out;
}

void CheckContact(const Contact& c) {
  FUZZ_CHECK(!c.queue_pair || c.ways.size() == 1);
  const std::string once = Encode(c);
  FUZZ_CHECK(once.size() <= kMaxContact);
  const absl::StatusOr<Contact> again = DecodeContact(once);
  // Encode leaves out what does not fit; the one way of a queue pair always does.
  FUZZ_CHECK(again.ok(), std::string(again.status().message()));
  FUZZ_CHECK(Encode(*again) == once);
  FUZZ_CHECK(again->nonce == c.nonce && again->queue_pair == c.queue_pair);
}

void CheckChoice(const Contact& a, const Contact& b) {
  const absl::StatusOr<DevicePair> here = ChooseDevices(a, b), there = ChooseDevices(b, a);
  FUZZ_CHECK(here.ok() == there.ok());
  if (!here.ok()) return;
  FUZZ_CHECK(here->device == there->peer_device && here->peer_device == there->device,
             here->device + " " + there->peer_device);
}

void Run(Input input) {
  const uint8_t mode = input.Byte();
  if (mode % 4 == 0) {
    const auto raw = input.Rest();
    const absl::StatusOr<Contact> c =
        DecodeContact({reinterpret_cast<const char*>(raw.data()), raw.size()});
    if (c.ok()) CheckContact(*c);
    return;
  }
  const auto first = input.Take(input.Number(2) % kMaxContact);
  const absl::StatusOr<Contact> a = DecodeContact(PutRight(first));
  const absl::StatusOr<Contact> b = DecodeContact(PutRight(input.Rest()));
  for (const auto* c : {&a, &b}) {
    if (c->ok()) CheckContact(**c);
  }
  if (!a.ok() || !b.ok()) return;
  if (a->queue_pair) (void)CheckPeer(*a, *b);
  CheckChoice(*a, *b);
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
