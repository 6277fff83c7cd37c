// SPDX-License-Identifier: Apache-2.0
#include "transport/checks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace verbena::provider {

absl::Status Children::CheckNone(const char* what) const {
  const int n = count();
  if (n == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("close ", what, ": ", n, n == 1 ? " object" : " objects",
                   " made from it still open; close ", n == 1 ? "it" : "them", " first"));
}

absl::Status CheckLimit(const char* what, uint64_t asked, uint64_t limit,
                        const std::string& device) {
  if (asked <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", asked, " asked for, at most ", limit, " on device ", device));
}

absl::Status CheckMemory(std::span<std::byte> memory, Access access,
                         const RegisterOptions& options) {
  if (memory.empty() || memory.data() == nullptr) {
    return absl::InvalidArgumentError("register: the memory is empty; lend at least one byte");
  }
  const uint64_t host = reinterpret_cast<uint64_t>(memory.data());
  if (host + memory.size() < host || options.iova + memory.size() < options.iova) {
    return absl::InvalidArgumentError(
        absl::StrCat("register ", memory.size(), " bytes: the address range wraps around"));
  }
  if ((access & (Access::kRemoteWrite | Access::kRemoteAtomic)) != Access::kLocalRead &&
      !Allows(access, Access::kLocalWrite)) {
    return absl::InvalidArgumentError(
        "register: remote write and remote atomic access need kLocalWrite as well "
        "(ibv_reg_mr(3))");
  }
  return absl::OkStatus();
}

QpLimits WithDefaults(QpLimits limits, const DeviceAttributes& device) {
  const QpLimits standard;
  const auto fill = [](uint32_t& limit, uint32_t usual, uint32_t most) {
    if (limit == 0) limit = std::min(usual, most);
  };
  fill(limits.max_send_wr, standard.max_send_wr, device.max_work_requests);
  fill(limits.max_receive_wr, standard.max_receive_wr, device.max_work_requests);
  fill(limits.max_send_sge, standard.max_send_sge, device.max_sge);
  fill(limits.max_receive_sge, standard.max_receive_sge, device.max_sge);
  fill(limits.max_inline, standard.max_inline, device.max_inline);
  return limits;
}

absl::Status CheckQueueLimits(const QpLimits& limits, const DeviceAttributes& attributes,
                              const std::string& device) {
  const struct {
    const char* what;
    uint64_t asked, most;
  } all[] = {
      {"create queue pair: max_send_wr", limits.max_send_wr, attributes.max_work_requests},
      {"create queue pair: max_receive_wr", limits.max_receive_wr, attributes.max_work_requests},
      {"create queue pair: max_send_sge", limits.max_send_sge, attributes.max_sge},
      {"create queue pair: max_receive_sge", limits.max_receive_sge, attributes.max_sge},
      {"create queue pair: max_inline", limits.max_inline, attributes.max_inline},
  };
  for (const auto& [what, asked, most] : all) {
    if (absl::Status s = CheckLimit(what, asked, most, device); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace verbena::provider
