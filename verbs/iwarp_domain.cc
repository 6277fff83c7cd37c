// SPDX-License-Identifier: Apache-2.0
#include "verbs/iwarp_domain.h"

#include <string_view>

#include "verbs/library.h"

namespace verbena::verbs {
namespace {

constexpr std::string_view kMagic = "VerbConf";

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
  std::unique_ptr<IwarpDomain> domain(new IwarpDomain);
  domain->memory_ = std::make_unique<uint64_t[]>(2);
  uint64_t* const sink = &domain->memory_[1];
  domain->lent_ = Lib().reg_mr(pd, domain->memory_.get(), 8, IBV_ACCESS_REMOTE_READ);
  // RFC 5040 4.4: the answer is a tagged write to the sink; devices want to see the right for it.
  domain->sink_ = Lib().reg_mr(pd, sink, 8, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
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

Confirmation IwarpDomain::lent() const {
  return {.address = reinterpret_cast<uint64_t>(memory_.get()), .key = lent_->rkey, .known = true};
}

}  // namespace verbena::verbs
