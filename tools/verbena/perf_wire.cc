// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/perf_wire.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace verbena::tool {
namespace {

constexpr absl::string_view kMagic = "VPRF";
constexpr uint8_t kVersion = 1;
constexpr size_t kHead = 24;  // of a request, before its RemoteBuffer
constexpr size_t kAnswerHead = 8;
constexpr size_t kBuffer = 20;  // Encode(RemoteBuffer)

void Append(uint64_t value, size_t bytes, std::string* out) {
  for (size_t i = bytes; i-- > 0;) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t Load(absl::string_view bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (char byte : bytes.substr(at, size)) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

absl::Status CheckHead(absl::string_view bytes, size_t size, absl::string_view wanted) {
  if (!absl::StartsWith(bytes, kMagic) || bytes.size() < size) {
    return absl::InvalidArgumentError(absl::StrCat("the other end is not `", wanted, "`"));
  }
  if (const auto version = static_cast<uint8_t>(bytes[4]); version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("the other end speaks version ", version,
                                                   " of perf's protocol, this end ", kVersion,
                                                   ": install the same Verbena on both"));
  }
  return absl::OkStatus();
}

}  // namespace

const char* PerfOpName(PerfOp op) {
  return op == PerfOp::kWrite ? "write" : op == PerfOp::kRead ? "read" : "send";
}

const char* PerfModeName(PerfMode mode) { return mode == PerfMode::kLatency ? "lat" : "bw"; }

std::string EncodePerfRequest(const PerfRequest& request) {
  std::string bytes(kMagic);
  Append(kVersion, 1, &bytes);
  Append(static_cast<uint8_t>(request.op), 1, &bytes);
  Append(static_cast<uint8_t>(request.mode), 1, &bytes);
  Append(0, 1, &bytes);
  Append(request.size, 4, &bytes);
  Append(request.window, 4, &bytes);
  Append(request.rounds, 4, &bytes);
  Append(0, 4, &bytes);
  return bytes + Encode(request.lent);
}

absl::StatusOr<PerfRequest> DecodePerfRequest(absl::string_view bytes) {
  if (absl::Status status = CheckHead(bytes, kHead + kBuffer, "verbena perf -c"); !status.ok()) {
    return status;
  }
  PerfRequest request;
  const uint64_t op = Load(bytes, 5, 1);
  const uint64_t mode = Load(bytes, 6, 1);
  if (op < 1 || op > 3)
    return absl::InvalidArgumentError(absl::StrCat("operation ", op, " is unknown"));
  if (mode < 1 || mode > 2)
    return absl::InvalidArgumentError(absl::StrCat("mode ", mode, " is unknown"));
  request.op = static_cast<PerfOp>(op);
  request.mode = static_cast<PerfMode>(mode);
  request.size = static_cast<uint32_t>(Load(bytes, 8, 4));
  request.window = static_cast<uint32_t>(Load(bytes, 12, 4));
  request.rounds = static_cast<uint32_t>(Load(bytes, 16, 4));
  if (request.size < 1 || request.size > kMaxPerfSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("size ", request.size, " is not from 1 to ", kMaxPerfSize));
  }
  if (request.window < 1 || request.window > kMaxPerfWindow) {
    return absl::InvalidArgumentError(
        absl::StrCat("window ", request.window, " is not from 1 to ", kMaxPerfWindow));
  }
  if (request.rounds < 1 || request.rounds > kMaxPerfRounds) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.rounds, " rounds are not from 1 to ", kMaxPerfRounds));
  }
  absl::StatusOr<RemoteBuffer> lent = Decode(bytes.substr(kHead));
  if (!lent.ok()) return lent.status();
  request.lent = *lent;
  return request;
}

std::string EncodePerfAnswer(const RemoteBuffer& lent) {
  std::string bytes(kMagic);
  Append(kVersion, 1, &bytes);
  Append(0, 3, &bytes);
  return bytes + Encode(lent);
}

absl::StatusOr<RemoteBuffer> DecodePerfAnswer(absl::string_view bytes) {
  if (absl::Status status = CheckHead(bytes, kAnswerHead + kBuffer, "verbena perf -s");
      !status.ok()) {
    return status;
  }
  return Decode(bytes.substr(kAnswerHead));
}

std::string EncodePerfResult(const PerfResult& result) {
  std::string bytes;
  Append(static_cast<uint64_t>(std::max(result.cpu_seconds, 0.0) * 1e6), kPerfResultBytes, &bytes);
  return bytes;
}

PerfResult DecodePerfResult(absl::string_view bytes) {
  if (bytes.size() < kPerfResultBytes) return {};
  return {.cpu_seconds = static_cast<double>(Load(bytes, 0, kPerfResultBytes)) / 1e6};
}

PerfLayout::PerfLayout(uint32_t size) {
  // Large areas begin on pages, as users' do; small ones share no cache line.
  const uint64_t unit = size >= 4096 ? 4096 : 64;
  area = (std::max<uint64_t>(size, kPerfResultBytes) + unit - 1) / unit * unit;
}

}  // namespace verbena::tool
