// SPDX-License-Identifier: Apache-2.0
#include "connect/context.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "connect/listener.h"
#include "connect/path.h"

namespace verbena::connect {
namespace {

std::vector<provider::Context*> Pointers(
    const std::vector<std::unique_ptr<provider::Context>>& owned) {
  std::vector<provider::Context*> all;
  for (const auto& each : owned) all.push_back(each.get());
  return all;
}

}  // namespace

Context::Context(std::unique_ptr<provider::Context> base,
                 std::vector<std::unique_ptr<provider::Context>> rdma, const Settings& settings)
    : base_(std::move(base)),
      rdma_(std::move(rdma)),
      core_(base_.get(), Pointers(rdma_), settings),
      rendezvous_(&core_, this) {
  base_->SetHost(this);
  for (const auto& each : rdma_) each->SetHost(this);
}

Context::~Context() = default;

absl::Status Context::CheckClosable() const {
  if (absl::Status s = base_->CheckClosable(); !s.ok()) return s;
  for (const auto& each : rdma_) {
    if (absl::Status s = each->CheckClosable(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Context::Close() {
  // All or none: a context that is half closed would be neither usable nor closable.
  if (absl::Status s = CheckClosable(); !s.ok()) return s;
  absl::Status first;
  for (const auto& each : rdma_) first.Update(each->Close());
  first.Update(base_->Close());
  return first;
}

std::vector<provider::Device*> Context::devices() const {
  std::vector<provider::Device*> all;
  if (!core_.required()) all = base_->devices();
  for (const auto& each : rdma_) {
    for (provider::Device* device : each->devices()) all.push_back(device);
  }
  return all;
}

Contact Context::contact() const {
  Contact contact;
  if (!core_.required()) contact = base_->contact();
  contact.rdma = core_.mode({});
  contact.absent = core_.absent();
  for (const auto& each : rdma_) {
    Contact theirs = each->contact();
    contact.absent.insert(contact.absent.end(), theirs.absent.begin(), theirs.absent.end());
    for (const Way& way : theirs.ways) {
      const bool serves = std::any_of(
          core_.usable().begin(), core_.usable().end(),
          [&way](const Usable& usable) { return usable.device->info().name == way.device; });
      if (serves) contact.ways.push_back(way);
    }
  }
  return contact;
}

absl::Status Context::Insist(Rdma mode, const std::string& what,
                             const std::vector<Candidate>& losers) const {
  if (mode != Rdma::kRequired) return absl::OkStatus();
  std::vector<std::string> reasons;
  for (const Candidate& each : losers) {
    reasons.push_back(absl::StrCat(each.device, ": ", each.reason));
  }
  reasons.insert(reasons.end(), core_.remedies().begin(), core_.remedies().end());
  return absl::UnavailableError(absl::StrCat(
      what, ": RDMA is required, and ",
      reasons.empty() ? "there is no RDMA device"
                      : absl::StrCat("not over ", absl::StrJoin(reasons, "; not over ")),
      ". `verbena devices` shows what there is."));
}

absl::StatusOr<std::unique_ptr<provider::Listener>> Context::Listen(const std::string& address,
                                                                    const ListenOptions& options) {
  const Rdma mode = core_.mode(options.rdma);
  if (core_.usable().empty()) {
    absl::Status s = Insist(mode, absl::StrCat("listen ", address), {});
    if (!s.ok()) return s;
  }
  return Listener::Create(this, &core_, address, options);
}

absl::StatusOr<std::unique_ptr<provider::Path>> Context::Resolve(const std::string& address,
                                                                 const ResolveOptions& options) {
  const Rdma mode = core_.mode(options.rdma);
  const absl::Duration start = Now();
  auto path = base_->Resolve(address, options);
  if (!path.ok()) return path.status();
  provider::Selection selection;
  std::vector<Candidate> losers;
  if (mode == Rdma::kOff || core_.usable().empty()) {
    selection.candidates = core_.WithoutRdma(mode, "");
  } else {
    Verdict verdict = rendezvous_.Prove(**path, address, options.deadline);
    if (verdict.device != nullptr) {
      return std::make_unique<RdmaPath>(&core_, &rendezvous_, *std::move(path), address, verdict,
                                        mode);
    }
    auto straight =
        rendezvous_.Straight(&verdict, address, mode, options.deadline - (Now() - start));
    if (straight != nullptr) {
      (void)(*path)->Close();
      return std::make_unique<StraightPath>(&core_, std::move(straight));
    }
    losers = verdict.losers;
    selection.candidates = core_.OnBase(losers);
    selection.tell_peer = verdict.peer_selects;
  }
  absl::Status s = Insist(mode, absl::StrCat("resolve ", address), losers);
  if (!s.ok()) {
    (void)(*path)->Close();
    return s;
  }
  (*path)->Announce(selection);
  return std::make_unique<StraightPath>(&core_, *std::move(path));
}

void Context::Push(const void* object, Event event) {
  // A way was proven and is none any more, or it is another's connect that failed, and then the
  // next Resolve proves a way once more.
  if (event.type == EventType::kUnreachable && event.context != this) rendezvous_.ForgetProofs();
  if (event.context == this) {
    Changed();  // of a proof: the service looks after it
  } else if (host_ != nullptr) {
    host_->Push(object, std::move(event));
  }
  base_->Wake();
}

void Context::Forget(const void* object) {
  if (host_ != nullptr) host_->Forget(object);
}

void Context::OnTimer() {
  const std::lock_guard lock(mutex_);
  absl::Duration next = absl::InfiniteDuration();
  const absl::Duration now = base_->Now();
  for (Listener* each : listeners_) next = std::min(next, each->Serve(now));
  if (next != absl::InfiniteDuration()) {
    base_->SetTimer(std::max(next - now, absl::ZeroDuration()));
  }
}

void Context::Add(Listener* listener) {
  {
    const std::lock_guard lock(mutex_);
    listeners_.push_back(listener);
  }
  Changed();  // somebody may have come before
}

void Context::Remove(Listener* listener) {
  const std::lock_guard lock(mutex_);
  std::erase(listeners_, listener);
  listener->CloseUnderLock();
}

std::unique_ptr<provider::Context> Compose(std::unique_ptr<provider::Context> base,
                                           std::vector<std::unique_ptr<provider::Context>> rdma,
                                           const Settings& settings) {
  return std::make_unique<Context>(std::move(base), std::move(rdma), settings);
}

}  // namespace verbena::connect
