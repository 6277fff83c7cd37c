// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/end.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace verbena::interop {

namespace {

constexpr std::byte kUntouched{0xa5};
constexpr uint64_t kAlways = 8;  // bytes of memory even if no message has any

ContextOptions Only(const std::string& provider) {
  return {.device = provider, .rdma = provider == "tcp" ? Rdma::kOff : Rdma::kRequired};
}

// 64 bits of the pattern. Never eight untouched bytes.
uint64_t Word(uint64_t seed, uint64_t index) {
  uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15 + index;
  x *= 0xbf58476d1ce4e5b9;
  return x ^ (x >> 29);
}

}  // namespace

void Check(const absl::Status& status, const char* what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.message()));
}

End::End(const EndOptions& chosen)
    : options(chosen),
      context(Check(Context::Open(Only(options.provider)), "open")),
      device(*context.devices()[0]),
      memory(std::max(options.memory, kAlways) + kGuard),
      pd(Check(device.AllocateProtectionDomain(), "protection domain")),
      region(Check(
          pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead),
          "register")),
      channel(Check(device.CreateCompletionChannel(), "completion channel")),
      send_cq(Check(device.CreateCompletionQueue(), "completion queue")),
      receive_cq(Check(device.CreateCompletionQueue({.channel = &channel}), "completion queue")) {}

void End::PrepareToConnect() {
  if (!options.initiator) listener_ = Check(context.Listen(options.address), "listen");
}

absl::Status End::Connect() {
  qp = Check(pd.CreateQueuePair({.send_cq = &send_cq, .receive_cq = &receive_cq}), "queue pair");
  const Require require{.remote_completion = options.remote_completion};
  if (options.initiator) {
    auto path = Check(context.Resolve(options.address), "resolve");
    auto accepted = path.Connect(qp, {.private_data = "from the initiator", .require = require});
    if (!accepted.ok()) return accepted.status();
    private_data = accepted->private_data;
  } else {
    auto request = listener_.Next(absl::Seconds(30));
    if (!request.ok()) return request.status();
    private_data = request->private_data();
    if (absl::Status s =
            request->Accept(qp, {.private_data = "from the responder", .require = require});
        !s.ok()) {
      return s;
    }
  }
  info = qp.connection();
  return absl::OkStatus();
}

std::string End::ConnectInVain(const std::string& reason) {
  if (!options.initiator) {
    auto request = listener_.Next(absl::Seconds(30));
    return std::string((request.ok() ? request->Reject(reason) : request.status()).message());
  }
  const absl::Status status = Connect();
  qp = {};
  const bool heard = absl::IsAborted(status) && absl::EndsWith(status.message(), ": " + reason);
  return heard ? "" : absl::StrCat("heard: ", status.ToString());
}

void End::Disconnect() {
  (void)qp.Disconnect();
  (void)qp.WaitUntilDisconnected(absl::Seconds(10));
  WorkCompletion scrap[16];
  while (send_cq.Poll(scrap) + receive_cq.Poll(scrap) > 0) {
  }
  qp = {};
}

void End::FillPattern(uint64_t seed, uint64_t size) {
  std::byte* to = memory.data();
  for (uint64_t i = 0; i < size; i += 8) {
    const uint64_t word = Word(seed, i / 8);
    std::memcpy(to + i, &word, std::min<uint64_t>(8, size - i));
  }
}

void End::FillGuard(uint64_t size) { std::fill_n(memory.data(), size + kGuard, kUntouched); }

std::string End::Compare(uint64_t seed, uint64_t size) const {
  for (uint64_t i = 0; i < size; i += 8) {
    const uint64_t word = Word(seed, i / 8);
    if (std::memcmp(memory.data() + i, &word, std::min<uint64_t>(8, size - i)) != 0) {
      return absl::StrCat("byte ", i, " or one of the next is wrong");
    }
  }
  for (uint64_t i = 0; i < kGuard; ++i) {
    if (memory[size + i] != kUntouched) return absl::StrCat("byte ", i, " behind it was written");
  }
  return "";
}

WcStatus End::Await(CompletionQueue& cq, absl::Duration patience, WorkCompletion* wc) {
  auto got = cq.Wait(1, patience);
  if (!got.ok()) return WcStatus::kGeneralError;
  if (wc != nullptr) *wc = got->front();
  return got->front().status;
}

}  // namespace verbena::interop
