// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/perf_wire.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tools/verbena/text.h"

namespace verbena::tool {
namespace {

constexpr absl::string_view kMagic = "VPRF";
constexpr absl::string_view kLegMagic = "VLEG";
constexpr absl::string_view kUsageMagic = "VUSE";
constexpr uint8_t kVersion = 2;
constexpr size_t kHead = 32;  // of a request, before its RemoteBuffer
constexpr size_t kAnswerHead = 8;
constexpr size_t kBuffer = 20;  // Encode(RemoteBuffer)
constexpr size_t kCongestionName = 16;

void Append(uint64_t value, size_t bytes, std::string* out) {
  for (size_t i = bytes; i-- > 0;) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t Load(absl::string_view bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (char byte : bytes.substr(at, size)) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

std::string Padded(std::string message) {
  message.resize(kPerfControlBytes);
  return message;
}

absl::Status CheckHead(absl::string_view bytes, size_t size, absl::string_view wanted) {
  if (!absl::StartsWith(bytes, kMagic) || bytes.size() <= kMagic.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the other end is not `", wanted, "`"));
  }
  if (const auto version = static_cast<uint8_t>(bytes[4]); version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("the other end speaks version ", version,
                                                   " of perf's protocol, this end ", kVersion,
                                                   ": install the same Verbena on both"));
  }
  if (bytes.size() < size) {
    return absl::InvalidArgumentError(absl::StrCat("the other end is not `", wanted,
                                                   "`: ", bytes.size(), " bytes of private data"));
  }
  return absl::OkStatus();
}

absl::Status CheckMessage(absl::string_view bytes, absl::string_view magic) {
  if (bytes.size() >= kPerfControlBytes && absl::StartsWith(bytes, magic)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the peer is out of step: a message that is no ",
                                                 magic,
                                                 ". Is the same Verbena installed on both?"));
}

absl::Status CheckRange(absl::string_view what, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " ", value, " is not from ", least, " to ", most));
}

}  // namespace

const char* PerfOpName(PerfOp op) {
  switch (op) {
    case PerfOp::kWrite:
      return "write";
    case PerfOp::kRead:
      return "read";
    case PerfOp::kSend:
      return "send";
    case PerfOp::kAtomic:
      return "atomic";
  }
  return "?";
}

const char* PerfModeName(PerfMode mode) {
  switch (mode) {
    case PerfMode::kLatency:
      return "lat";
    case PerfMode::kBandwidth:
      return "bw";
    case PerfMode::kRate:
      return "rate";
  }
  return "?";
}

std::string EncodePerfRequest(const PerfRequest& request) {
  std::string bytes(kMagic);
  Append(kVersion, 1, &bytes);
  Append(static_cast<uint8_t>(request.op), 1, &bytes);
  Append(static_cast<uint8_t>(request.mode), 1, &bytes);
  Append(request.events ? 1 : 0, 1, &bytes);
  Append(request.size, 4, &bytes);
  Append(request.window, 4, &bytes);
  Append(request.queue_pairs, 4, &bytes);
  Append(request.index, 4, &bytes);
  Append(request.session, 8, &bytes);
  return bytes + Encode(request.lent);
}

absl::StatusOr<PerfRequest> DecodePerfRequest(absl::string_view bytes) {
  if (absl::Status status = CheckHead(bytes, kHead + kBuffer, "verbena perf -c"); !status.ok()) {
    return status;
  }
  const uint64_t op = Load(bytes, 5, 1);
  const uint64_t mode = Load(bytes, 6, 1);
  const uint64_t events = Load(bytes, 7, 1);
  PerfRequest request;
  request.size = static_cast<uint32_t>(Load(bytes, 8, 4));
  request.window = static_cast<uint32_t>(Load(bytes, 12, 4));
  request.queue_pairs = static_cast<uint32_t>(Load(bytes, 16, 4));
  request.index = static_cast<uint32_t>(Load(bytes, 20, 4));
  request.session = Load(bytes, 24, 8);
  for (const absl::Status& status :
       {CheckRange("operation", op, 1, 4), CheckRange("mode", mode, 1, 3),
        CheckRange("events", events, 0, 1),
        op == static_cast<uint64_t>(PerfOp::kAtomic)
            ? CheckRange("size", request.size, kAtomicBytes, kAtomicBytes)
            : CheckRange("size", request.size, 1, kMaxPerfSize),
        CheckRange("window", request.window, 1, kMaxPerfWindow),
        CheckRange("queue pairs", request.queue_pairs, 1, kMaxPerfQps),
        CheckRange("index", request.index, 0, request.queue_pairs - 1)}) {
    if (!status.ok()) return status;
  }
  request.op = static_cast<PerfOp>(op);
  request.mode = static_cast<PerfMode>(mode);
  request.events = events == 1;
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

std::string EncodePerfLeg(const PerfLeg& leg) {
  std::string bytes(kLegMagic);
  Append(leg.size, 4, &bytes);
  Append(leg.rounds, 8, &bytes);
  Append(leg.credit, 4, &bytes);
  return Padded(std::move(bytes));
}

absl::StatusOr<PerfLeg> DecodePerfLeg(absl::string_view bytes, const PerfRequest& request) {
  if (absl::Status status = CheckMessage(bytes, kLegMagic); !status.ok()) return status;
  const PerfLeg leg{.size = static_cast<uint32_t>(Load(bytes, 4, 4)),
                    .rounds = Load(bytes, 8, 8),
                    .credit = static_cast<uint32_t>(Load(bytes, 16, 4))};
  for (const absl::Status& status : {CheckRange("a leg's size", leg.size, 1, request.size),
                                     CheckRange("a leg's rounds", leg.rounds, 0, kMaxPerfRounds),
                                     CheckRange("a leg's credit", leg.credit, 0, request.window)}) {
    if (!status.ok()) return status;
  }
  return leg;
}

std::string EncodePerfUsage(const PerfUsage& usage) {
  std::string bytes(kUsageMagic);
  Append(usage.tcp.send_buffer, 4, &bytes);
  Append(usage.tcp.receive_buffer, 4, &bytes);
  Append(0, 4, &bytes);
  Append(static_cast<uint64_t>(std::llround(std::max(usage.cpu.seconds, 0.0) * 1e6)), 8, &bytes);
  Append(usage.cpu.cycles, 8, &bytes);
  return Padded(bytes + usage.tcp.congestion_control.substr(0, kCongestionName));
}

absl::StatusOr<PerfUsage> DecodePerfUsage(absl::string_view bytes) {
  if (absl::Status status = CheckMessage(bytes, kUsageMagic); !status.ok()) return status;
  PerfUsage usage;
  usage.tcp.send_buffer = static_cast<uint32_t>(Load(bytes, 4, 4));
  usage.tcp.receive_buffer = static_cast<uint32_t>(Load(bytes, 8, 4));
  usage.cpu.seconds = static_cast<double>(Load(bytes, 16, 8)) / 1e6;
  usage.cpu.cycles = Load(bytes, 24, 8);
  const absl::string_view name = bytes.substr(32, kCongestionName);
  usage.tcp.congestion_control = Printable(name.substr(0, name.find('\0')));
  return usage;
}

PerfLayout::PerfLayout(uint32_t size) {
  // Large areas begin on pages, as users' do; small ones share no cache line.
  const uint64_t unit = size >= 4096 ? 4096 : 64;
  area = (std::max<uint64_t>(size, kPerfControlBytes) + unit - 1) / unit * unit;
}

}  // namespace verbena::tool
