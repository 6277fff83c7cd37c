// SPDX-License-Identifier: Apache-2.0
#include "transport/checks.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstring>

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

absl::Status CheckPrivateData(const char* what, const std::string& data, uint64_t limit,
                              const std::string& device) {
  return CheckLimit(absl::StrCat(what, ": private data bytes").c_str(), data.size(), limit, device);
}

absl::Status CheckIdle(const std::string& what, QpState state, bool connecting) {
  if (state == QpState::kInit && !connecting) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what, ": it is in state ", QpStateName(state),
                   connecting && state == QpState::kInit ? " and connecting already" : "",
                   "; only one in INIT can be connected (modify it to RESET, then INIT)"));
}

absl::Status OtherDevice(const std::string& what, const char* from) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": the queue pair is of another device; make it on ", from, ".device()"));
}

absl::Status NoDescriptor(const std::string& what, int error) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return absl::ResourceExhaustedError(absl::StrCat(
      what, ": no descriptor is left (", std::strerror(error), "; the limit is ", limit.rlim_cur,
      "). Close some, or raise it: `ulimit -n`, LimitNOFILE= in "
      "systemd, `--ulimit nofile=` for a container."));
}

absl::Status CheckCqEntries(const char* what, uint32_t entries, uint32_t limit,
                            const std::string& device) {
  const std::string of = absl::StrCat(what, " entries");
  if (entries > 0) return CheckLimit(of.c_str(), entries, limit, device);
  return absl::InvalidArgumentError(absl::StrCat(of, ": 0 asked for, at least 1 is needed"));
}

absl::Status MoreWaitsThan(uint32_t entries) {
  return absl::InvalidArgumentError(absl::StrCat("resize completion queue to ", entries,
                                                 " entries: more completions than that wait in "
                                                 "it; poll them first"));
}

absl::Status CheckNotify(const void* channel) {
  if (channel != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "request notify: the completion queue has no channel; name one when creating it");
}

absl::Status CheckSrqLimits(const SrqLimits& limits, const DeviceAttributes& attributes,
                            const std::string& device) {
  if (limits.max_wr == 0) {
    return absl::InvalidArgumentError("shared receive queue: max_wr is 0, at least 1 is needed");
  }
  absl::Status s = CheckLimit("shared receive queue max_wr", limits.max_wr,
                              attributes.max_work_requests, device);
  if (!s.ok()) return s;
  return CheckLimit("shared receive queue max_sge", limits.max_sge, attributes.max_sge, device);
}

absl::Status CheckSrqLimit(uint32_t limit, uint32_t max_wr) {
  if (limit <= max_wr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("shared receive queue limit: ", limit, " asked for, the queue holds ", max_wr));
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
