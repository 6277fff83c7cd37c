// SPDX-License-Identifier: Apache-2.0
// What an RPC peer sends: its hello, a message of frames, and the head and end of a call in them.
#include <algorithm>

#include "rpc/envelope.h"
#include "rpc/frame.h"
#include "tests/fuzz/input.h"

namespace verbena::fuzz {
namespace {

using Bytes = std::span<const std::byte>;

void Hello(Bytes bytes) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto hello = rpc::DecodeHello(text);
  if (!hello.ok()) return;
  FUZZ_CHECK(hello->receives >= 2);
  FUZZ_CHECK(rpc::EncodeHello(*hello) == text.substr(0, rpc::kHelloBytes));
}

void Envelope(const rpc::Frame& frame, Bytes carried) {
  rpc::Metadata metadata;
  if (frame.kind == rpc::FrameKind::kRequest) {
    (void)rpc::DecodeHead(carried.first(frame.head), &metadata);
    return;
  }
  absl::Status status;
  const char* wrong = rpc::DecodeEnd(carried.first(frame.head), frame.code, &status, &metadata);
  FUZZ_CHECK(wrong != nullptr || static_cast<uint32_t>(status.code()) == frame.code);
}

// As Session::Take walks through it.
void Message(Bytes message) {
  while (!message.empty()) {
    rpc::Frame frame;
    if (rpc::Decode(message, &frame) != nullptr) return;
    const size_t bytes = rpc::FrameBytes(frame);
    FUZZ_CHECK(bytes >= rpc::kFrameHeader && bytes <= message.size() && bytes % 8 == 0);
    std::vector<std::byte> again(bytes);
    rpc::Encode(frame, again);
    const size_t fixed = rpc::kFrameHeader + (frame.by_address ? rpc::kLentBytes : 0);
    FUZZ_CHECK(
        std::equal(again.begin(), again.begin() + static_cast<ptrdiff_t>(fixed), message.begin()));
    if (!frame.by_address && frame.carried() > 0) {
      Envelope(frame, message.subspan(rpc::kFrameHeader, frame.carried()));
    }
    message = message.subspan(bytes);
  }
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes = std::as_bytes(std::span(data, size));
  verbena::fuzz::Hello(bytes);
  verbena::fuzz::Message(bytes);
  return 0;
}
