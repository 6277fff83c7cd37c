// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/end.h"

#include <filesystem>
#include <iterator>
#include <span>
#include <utility>

#include "fallback/engine/handshake.h"
#include "fallback/wire/extension.h"
#include "tests/cli/tcp_peer.h"
#include "tests/conformance/check.h"

namespace verbena::hostile {

using conformance::Check;

Site::Site(const ListenOptions& options)
    : context_(Check(Context::Open({.device = "tcp", .rdma = Rdma::kOff}))),
      pd_(Check(context_.devices()[0]->AllocateProtectionDomain())),
      cq_(Check(context_.devices()[0]->CreateCompletionQueue({.entries = 256}))),
      region_(Check(pd_.Register(std::as_writable_bytes(std::span(memory_)),
                                 Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead |
                                     Access::kRemoteAtomic))),
      listener_(Check(context_.Listen("127.0.0.1:0", options))) {}

QueuePair Site::NewQueuePair() {
  QueuePair qp = Check(pd_.CreateQueuePair({.send_cq = &cq_, .receive_cq = &cq_}));
  Check(qp.PostReceive({.local = region_.slice(0, 64), .id = 1}));
  return qp;
}

Site::Served Site::Serve() {
  ConnectionRequest request = Check(listener_.Next(absl::Seconds(60)));
  QueuePair qp = NewQueuePair();
  const absl::Status accepted =
      request.Accept(qp, {.initiator_depth = 1, .responder_resources = 1});
  return {std::move(qp), accepted};
}

bool Site::ServesTheNext() {
  testing::Caller good(port());
  good.Say(OwnRequest());
  Served served = Serve();
  Check(served.accepted);
  const std::string reply = good.Hear(20);
  if (!reply.starts_with("MPA ID Rep Frame") || (reply[16] & 0x20) != 0) return false;
  good.Say(Text(engine::MakeFpdu(engine::WriteHeader(0, 0))) +
           Text(engine::MakeFpdu(engine::SendHeader(1), engine::Bytes(8))));
  return Received(served.qp);
}

bool Site::Received(const QueuePair& qp) {
  for (;;) {  // completions of an earlier queue pair may be there before
    const std::vector<WorkCompletion> done = Check(cq_.Wait(1, absl::Seconds(60)));
    if (done[0].qp_number == qp.number()) return done[0].ok();
  }
}

std::string Frame(const FrameParts& parts) {
  std::string out = parts.key;
  out += static_cast<char>(parts.flags);
  out += static_cast<char>(parts.revision);
  const int length = parts.length < 0 ? static_cast<int>(parts.data.size()) : parts.length;
  out += static_cast<char>(length >> 8);
  out += static_cast<char>(length);
  return out + parts.data;
}

std::string OwnRequest() {
  const std::vector<std::byte> bytes = engine::EncodeRequest({"", 1, 1, {}});
  return Text(bytes);
}

std::string ForeignRequest(bool crc) {
  // A and the Write as ready frame; one read each way.
  return Frame({.flags = static_cast<uint8_t>(crc ? 0x50 : 0x10),
                .revision = 2,
                .data = std::string("\x80\x01\x80\x01", 4)});
}

std::string Record(uint8_t role, uint32_t features, uint32_t required) {
  std::byte raw[sizeof(wire::RecordBytes)];
  wire::AppendRecord({role, wire::kMaxFpduKib, features, required}, raw);
  return {reinterpret_cast<const char*>(raw), sizeof raw};
}

std::string Text(const engine::Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

int CountDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<int>(std::distance(begin(all), end(all)));
}

}  // namespace verbena::hostile
