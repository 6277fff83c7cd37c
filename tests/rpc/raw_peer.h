// SPDX-License-Identifier: Apache-2.0
// A peer of an RPC server below the library: it says hello as it should, then whatever a test
// wants.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "rpc/frame.h"
#include "rpc/limits.h"
#include "tests/rpc/fixture.h"

namespace verbena::testing {

inline const std::string kHello =
    rpc::EncodeHello({.receives = 8, .receive_bytes = 8192, .max_message = 1 << 20});

// With what it carries.
inline std::vector<std::byte> Encoded(rpc::Frame frame, const std::string& body = "") {
  frame.body = frame.by_address ? frame.body : static_cast<uint32_t>(body.size());
  std::vector<std::byte> bytes(rpc::FrameBytes(frame));
  rpc::Encode(frame, bytes);
  std::ranges::copy(std::as_bytes(std::span(body)), bytes.begin() + rpc::kFrameHeader);
  return bytes;
}

class RawPeer {
 public:
  // What comes into the `receives` is not looked at.
  explicit RawPeer(const std::string& address, const std::string& hello, uint32_t receives = 0)
      : context_(Check(Context::Open(ContextUnderTest()))),
        path_(Check(context_.Resolve(address))) {
    domain_ = Check(path_.device().AllocateProtectionDomain());
    completions_ = Check(path_.device().CreateCompletionQueue());
    bytes_.resize(2 * rpc::kReceiveBytes);
    region_ = Check(domain_.Register(bytes_, Access::kLocalWrite));
    qp_ = Check(domain_.CreateQueuePair({.send_cq = &completions_, .receive_cq = &completions_}));
    for (uint32_t i = 0; i < receives; ++i) {
      Check(qp_.PostReceive(
          {.local = region_.slice(rpc::kReceiveBytes, rpc::kReceiveBytes), .id = kReceived}));
    }
    connected_ = path_.Connect(qp_, {.private_data = hello}).status();
  }
  const absl::Status& connected() const { return connected_; }
  void Send(std::span<const std::byte> message) { Check(Post(message)); }
  // False: the connection has ended.
  bool SendAndWait(std::span<const std::byte> message) {
    if (!Post(message).ok()) return false;
    for (;;) {
      const WorkCompletion wc = Check(completions_.Wait(1, kLongEnough)).front();
      if (wc.id == kSent) return wc.ok();
    }
  }
  absl::Status AwaitEnd() { return qp_.WaitUntilDisconnected(kLongEnough); }

 private:
  static constexpr uint64_t kSent = 1;
  static constexpr uint64_t kReceived = 2;
  PostResult Post(std::span<const std::byte> message) {
    std::ranges::copy(message, bytes_.begin());
    return qp_.PostSend(
        {.local = region_.slice(0, static_cast<uint32_t>(message.size())), .id = kSent});
  }

  Context context_;
  Path path_;
  ProtectionDomain domain_;
  CompletionQueue completions_;
  std::vector<std::byte> bytes_;
  MemoryRegion region_;
  QueuePair qp_;
  absl::Status connected_;
};

}  // namespace verbena::testing
