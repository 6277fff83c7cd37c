// SPDX-License-Identifier: Apache-2.0
#include "verbs/iwarp_domain.h"

#include <cerrno>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "verbs/errors.h"
#include "verbs/memlock.h"
#include "verbs/service.h"

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

std::unique_ptr<IwarpDomain> IwarpDomain::Create(ibv_pd* pd, const Library& library) {
  std::unique_ptr<IwarpDomain> domain(new IwarpDomain(pd, library));
  domain->memory_ = std::make_unique<uint64_t[]>(2);
  uint64_t* const sink = &domain->memory_[1];
  domain->lent_ = library.reg_mr(pd, domain->memory_.get(), 8, IBV_ACCESS_REMOTE_READ);
  domain->sink_ = library.reg_mr(pd, sink, 8, kSink);
  if (domain->lent_ == nullptr || domain->sink_ == nullptr) return nullptr;
  domain->sink_entry_ = {
      .addr = reinterpret_cast<uint64_t>(sink), .length = 8, .lkey = domain->sink_->lkey};
  return domain;
}

IwarpDomain::~IwarpDomain() {
  const int error = errno;  // Create's caller reports it
  for (ibv_mr* mr : {lent_, sink_}) {
    if (mr != nullptr) library_.dereg_mr(mr);
  }
  errno = error;
}

void IwarpDomain::Add(const ibv_mr& region, uint64_t first, Access access, ibv_mr* sink) {
  const bool writable = Allows(access, Access::kLocalWrite);
  const bool open = Allows(access, Access::kRemoteWrite);
  if (writable && !open) {
    const std::lock_guard lock(mutex_);
    private_[region.lkey] = {
        .memory = region.addr, .length = region.length, .first = first, .sink = sink};
  }
  const uint32_t private_key = sink != nullptr ? sink->lkey : 0;
  keys_.Add(region.lkey, first, region.length, writable, open ? region.lkey : private_key);
}

ibv_mr* IwarpDomain::Remove(uint32_t key) {
  keys_.Remove(key);
  std::unique_lock lock(mutex_);
  auto it = private_.end();
  made_.wait(lock, [&] {
    it = private_.find(key);
    return it == private_.end() || !it->second.making;
  });
  if (it == private_.end()) return nullptr;
  ibv_mr* const sink = it->second.sink;
  private_.erase(it);
  return sink;
}

ibv_mr* IwarpDomain::Register(const Private& region, absl::Status* refused) const {
  const std::string what = absl::StrCat("register ", region.length, " bytes");
  const uint64_t pages = LockedPages(region.memory, region.length);
  *refused = CheckPinnable(what, pages);
  if (refused->ok()) {
    ibv_mr* const sink =
        region.first != reinterpret_cast<uint64_t>(region.memory)
            ? library_.reg_mr_iova(pd_, region.memory, region.length, region.first, kSink)
            : library_.reg_mr(pd_, region.memory, region.length, kSink);
    if (sink != nullptr) return sink;
    const int error = errno;
    *refused = PinRefused(what, pages, error);
    if (refused->ok()) {
      *refused = ErrnoStatus(error, what, "Close regions that are not needed, and try again.");
    }
  }
  *refused = absl::Status(
      refused->code(),
      absl::StrCat(
          "read into [0x", absl::Hex(region.first), ", 0x", absl::Hex(region.first + region.length),
          "): an iWARP device needs this memory registered once more, open to the answer: ",
          refused->message()));
  return nullptr;
}

void IwarpDomain::PrepareSink(uint32_t key) {
  constexpr absl::Duration kTryAgain = absl::Seconds(1);
  if (keys_.Sink(key) != 0) return;
  std::unique_lock lock(mutex_);
  auto it = private_.end();
  made_.wait(lock, [&] {
    it = private_.find(key);
    return it == private_.end() || !it->second.making;
  });
  if (it == private_.end() || it->second.sink != nullptr || SteadyNow() < it->second.again) return;
  it->second.making = true;
  const Private region = it->second;
  lock.unlock();
  absl::Status refused;
  ibv_mr* const sink = Register(region, &refused);
  lock.lock();
  Private& made = private_.find(key)->second;  // Remove waits
  made.making = false;
  made.sink = sink;
  if (sink != nullptr) {
    keys_.SetSink(key, sink->lkey);
  } else {
    made.again = SteadyNow() + kTryAgain;
    no_sink_ = refused;
  }
  lock.unlock();
  made_.notify_all();
  if (sink == nullptr) VERBENA_LOG_LIMITED(refusals_, kWarn, "verbs", refused.message());
}

absl::Status IwarpDomain::why_no_sink() const {
  const std::lock_guard lock(mutex_);
  return no_sink_;
}

Confirmation IwarpDomain::lent() const {
  return {.address = reinterpret_cast<uint64_t>(memory_.get()), .key = lent_->rkey, .known = true};
}

}  // namespace verbena::verbs
