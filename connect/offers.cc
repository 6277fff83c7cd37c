// SPDX-License-Identifier: Apache-2.0
#include "connect/offers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "connect/limits.h"
#include "transport/log.h"

namespace verbena::connect {

Answer Offers::Refuse(Reason reason, const std::string& text) {
  core_.CountRefusal(reason);
  return {.reason = reason, .text = text};
}

Answer Offers::Open(const Ask& ask, const ConnectionInfo& caller, absl::Duration now) {
  if (core_.usable().empty()) return Refuse(Reason::kNoDevice, "the listener has no RDMA device");
  const std::vector<Site> sites = core_.Nearest(ask, ParseIp(HostOf(caller.local)).value_or(Ip{}));
  if (sites.empty()) {
    return Refuse(Reason::kNoCommonLink, "the listener's RDMA devices have another link layer");
  }
  if (ask.nth >= sites.size()) {
    return Refuse(Reason::kNoDevice, "the listener has no other RDMA device");
  }
  const Site site = sites[ask.nth];
  const Ip peer = ParseIp(HostOf(caller.peer)).value_or(Ip{});
  size_t of_peer = 0, of_network = 0;
  for (const Offer& each : offers_) {
    of_peer += each.peer == peer;
    of_network += OneNetwork(each.peer, peer);
  }
  if (of_peer >= kOffersPerPeer || of_network >= kOffersPerNetwork || offers_.size() >= kOffers) {
    return Refuse(Reason::kBusy, "too many connects at once");
  }
  absl::StatusOr<Token> token = NewToken();
  auto listener = site.usable->provider->Listen(WithPort(site.address, 0), {.backlog = 4});
  if (!token.ok() || !listener.ok()) {
    const absl::Status why = token.ok() ? listener.status() : token.status();
    VERBENA_LOG_LIMITED(strange_, kWarn, "select", "no port for ", caller.peer, " on ",
                        site.usable->device->info().name, ": ", why.message());
    return Refuse(Reason::kFailed, absl::StrCat("the listener failed: ", why.message()));
  }
  Answer answer;
  answer.link = site.usable->device->info().link;
  answer.address = site.address;
  answer.port = PortOf((*listener)->address());
  answer.token = *token;
  answer.more = static_cast<uint8_t>(std::min<size_t>(sites.size() - 1 - ask.nth, UINT8_MAX));
  offers_.push_back({*std::move(listener), ask.purpose, *token, peer, now + kOfferTime});
  return answer;
}

void Offers::Serve(absl::Duration now,
                   std::vector<std::unique_ptr<provider::ConnectionRequest>>* arrived) {
  for (auto it = offers_.begin(); it != offers_.end();) {
    std::unique_ptr<provider::ConnectionRequest> request = it->listener->TryNext();
    if (request == nullptr && it->until > now) {
      ++it;
      continue;
    }
    if (request != nullptr && it->purpose == Purpose::kProof) {
      CheckProof(*it, std::move(request), now);
    } else if (request != nullptr) {
      arrived->push_back(std::move(request));
    }
    (void)it->listener->Close();  // used up, or too old
    it = offers_.erase(it);
  }
  std::erase_if(proofs_, [now](const Proof& each) {
    const QpState state = each.probe->qp().Query().state;
    return each.until <= now || state == QpState::kErr || state == QpState::kReset;
  });
}

void Offers::CheckProof(const Offer& offer, std::unique_ptr<provider::ConnectionRequest> request,
                        absl::Duration now) {
  const std::string& peer = request->info().peer;
  if (!BringsToken(request->private_data(), offer.token)) {
    VERBENA_LOG_LIMITED(strange_, kWarn, "select", offer.listener->address(), ": ", peer,
                        " came without the token that was given to ", ToText(offer.peer),
                        "; rejected");
    core_.CountRefusal(Reason::kRefused);
    (void)request->Close();  // which rejects
    return;
  }
  auto probe = Probe::Make(request->device(), tag_);
  AcceptParameters parameters;
  parameters.initiator_depth = parameters.responder_resources = 1;
  absl::Status status = probe.status();
  if (status.ok()) status = request->Accept((*probe)->qp(), parameters);
  if (status.ok()) {
    proofs_.push_back({*std::move(probe), now + kProofLinger});
  } else {
    VERBENA_LOG_LIMITED(strange_, kWarn, "select", "proof of ", peer, ": ", status.message());
    core_.CountRefusal(Reason::kFailed);
  }
  (void)request->Close();
}

void Offers::Close() {
  for (Offer& each : offers_) (void)each.listener->Close();
  offers_.clear();
  proofs_.clear();
}

absl::Duration Offers::NextDeadline() const {
  absl::Duration next = absl::InfiniteDuration();
  for (const Offer& each : offers_) next = std::min(next, each.until);
  for (const Proof& each : proofs_) next = std::min(next, each.until);
  return next;
}

}  // namespace verbena::connect
