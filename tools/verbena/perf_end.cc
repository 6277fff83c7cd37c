// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/verbena/perf.h"

namespace verbena::tool {

absl::StatusOr<PerfEnd> PerfEnd::Make(Device& device, const PerfRequest& request,
                                      absl::Duration patience) {
  PerfEnd end;
  end.request_ = request;
  end.layout_ = PerfLayout(request.size);
  end.patience_ = patience;
  // Twice the window, so that a sender seldom finds no receive; one more for the control message.
  const bool flood = request.op == PerfOp::kSend && request.mode == PerfMode::kBandwidth;
  const uint32_t receives = flood ? 2 * request.window + 1 : 2;
  absl::StatusOr<std::unique_ptr<Link>> link =
      Link::Make(device, {.sends = request.window + 32, .receives = receives});
  if (!link.ok()) return link.status();
  end.link_ = *std::move(link);
  absl::StatusOr<Buffer*> data = end.link_->AddBuffer(
      end.layout_.total(), Access::kLocalWrite | Access::kRemoteRead | Access::kRemoteWrite);
  if (!data.ok()) return data.status();
  end.data_ = *data;
  for (uint32_t i = 0; i < receives; ++i) {
    if (absl::Status status = end.PostReceive(); !status.ok()) return status;
  }
  return end;
}

// Every operation uses the same memory, as other verbs benchmarks do.
void PerfEnd::set_peer(const RemoteBuffer& peer) {
  SendWr one{.opcode = Opcode::kSend, .local = data_->slice(layout_.source(), request_.size)};
  if (request_.op == PerfOp::kWrite) {
    one.opcode = Opcode::kWrite;
    one.remote = peer.at(layout_.landing());
  } else if (request_.op == PerfOp::kRead) {
    one.opcode = Opcode::kRead;
    one.local = data_->slice(layout_.landing(), request_.size);
    one.remote = peer.at(layout_.source());
  }
  batch_.assign(kMostPosts, one);
}

absl::Status PerfEnd::Post(uint32_t count) {
  const PostResult posted = link_->qp().PostSend(std::span(batch_).first(count));
  return posted.ok() ? absl::OkStatus() : posted.ToStatus();
}

absl::Status PerfEnd::PostReceive() {
  return link_->PostReceive(
      {.local = data_->slice(layout_.landing(), static_cast<uint32_t>(layout_.area))});
}

uint8_t PerfEnd::Landed() const {
  std::byte& last = data_->bytes()[layout_.landing() + request_.size - 1];
  return std::to_integer<uint8_t>(std::atomic_ref<std::byte>(last).load(std::memory_order_acquire));
}

void PerfEnd::Stamp(uint8_t stamp) {
  data_->bytes()[layout_.source() + request_.size - 1] = std::byte{stamp};
}

absl::Status PerfEnd::SendControl(absl::string_view bytes) {
  std::byte* const out = data_->bytes().data() + layout_.source();
  memset(out, 0, kPerfResultBytes);
  memcpy(out, bytes.data(), std::min<size_t>(bytes.size(), kPerfResultBytes));
  return link_->PostSend(
      {.opcode = Opcode::kSend, .local = data_->slice(layout_.source(), kPerfResultBytes)});
}

std::string PerfEnd::LandedControl() const {
  const char* in = reinterpret_cast<const char*>(data_->bytes().data() + layout_.landing());
  return std::string(in, kPerfResultBytes);
}

}  // namespace verbena::tool
