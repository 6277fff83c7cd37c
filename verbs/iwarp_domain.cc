// SPDX-License-Identifier: Apache-2.0
#include "verbs/iwarp_domain.h"

#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "transport/log.h"
#include "verbs/library.h"

namespace verbena::verbs {
namespace {

constexpr std::string_view kMagic = "VerbConf";
constexpr int kSink = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

template <typename T>
void Put(std::string* out, T value) {
  for (int shift = 8 * (static_cast<int>(sizeof(T)) - 1); shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift & 0xff));
  }
}

template <typename T>
T Get(std::string_view from) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value << 8 | static_cast<uint8_t>(from[i]));
  }
  return value;
}

}  // namespace

std::string WithConfirmation(std::string private_data, const Confirmation& confirmation) {
  private_data += kMagic;
  Put(&private_data, confirmation.address);
  Put(&private_data, confirmation.key);
  return private_data;
}

Confirmation SplitConfirmation(std::string* private_data) {
  if (private_data->size() < kConfirmationBytes) return {};
  const std::string_view tail =
      std::string_view(*private_data).substr(private_data->size() - kConfirmationBytes);
  if (!tail.starts_with(kMagic)) return {};
  const Confirmation confirmation{.address = Get<uint64_t>(tail.substr(8)),
                                  .key = Get<uint32_t>(tail.substr(16)),
                                  .known = true};
  private_data->resize(private_data->size() - kConfirmationBytes);
  return confirmation;
}

std::unique_ptr<IwarpDomain> IwarpDomain::Create(ibv_pd* pd) {
  std::unique_ptr<IwarpDomain> domain(new IwarpDomain(pd));
  domain->memory_ = std::make_unique<uint64_t[]>(2);
  uint64_t* const sink = &domain->memory_[1];
  domain->lent_ = Lib().reg_mr(pd, domain->memory_.get(), 8, IBV_ACCESS_REMOTE_READ);
  domain->sink_ = Lib().reg_mr(pd, sink, 8, kSink);
  if (domain->lent_ == nullptr || domain->sink_ == nullptr) return nullptr;
  domain->sink_entry_ = {
      .addr = reinterpret_cast<uint64_t>(sink), .length = 8, .lkey = domain->sink_->lkey};
  return domain;
}

IwarpDomain::~IwarpDomain() {
  for (ibv_mr* mr : {lent_, sink_}) {
    if (mr != nullptr) Lib().dereg_mr(mr);
  }
}

void IwarpDomain::Add(const ibv_mr& region, uint64_t first, Access access) {
  const bool writable = Allows(access, Access::kLocalWrite);
  const bool open = Allows(access, Access::kRemoteWrite);
  if (writable && !open) {
    const std::lock_guard lock(mutex_);
    private_[region.lkey] = {.memory = region.addr, .length = region.length, .first = first};
  }
  keys_.Add(region.lkey, first, region.length, writable, open ? region.lkey : 0);
}

void IwarpDomain::Remove(uint32_t key) {
  keys_.Remove(key);
  const std::lock_guard lock(mutex_);
  const auto it = private_.find(key);
  if (it == private_.end()) return;
  if (it->second.sink != nullptr) Lib().dereg_mr(it->second.sink);
  private_.erase(it);
}

uint32_t IwarpDomain::SinkKey(uint32_t key) {
  if (const uint32_t known = keys_.Sink(key); known != 0) return known;
  const std::lock_guard lock(mutex_);
  const auto it = private_.find(key);
  if (it == private_.end()) return key;
  Private& region = it->second;
  if (region.sink == nullptr) {
    region.sink = region.first != reinterpret_cast<uint64_t>(region.memory)
                      ? Lib().reg_mr_iova(pd_, region.memory, region.length, region.first, kSink)
                      : Lib().reg_mr(pd_, region.memory, region.length, kSink);
    if (region.sink == nullptr) {
      VERBENA_LOG(kWarn, "verbs", "read into [0x", absl::Hex(region.first), ", 0x",
                  absl::Hex(region.first + region.length),
                  "): the memory cannot be registered once more as its sink (",
                  std::strerror(errno),
                  "), and the device may refuse the read. Is there enough locked memory, and are "
                  "there regions left?");
      keys_.SetSink(key, key);  // tried once
      return key;
    }
    keys_.SetSink(key, region.sink->lkey);
  }
  return region.sink->lkey;
}

Confirmation IwarpDomain::lent() const {
  return {.address = reinterpret_cast<uint64_t>(memory_.get()), .key = lent_->rkey, .known = true};
}

}  // namespace verbena::verbs
