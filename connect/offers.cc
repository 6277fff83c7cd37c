// SPDX-License-Identifier: Apache-2.0
#include "connect/offers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "connect/limits.h"
#include "transport/log.h"

namespace verbena::connect {

Answer Offers::Refuse(Reason reason, const std::string& text, uint8_t more) {
  core_.CountRefusal(reason);
  return {.reason = reason, .text = text, .more = more};
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
  const std::string& name = site.usable->device->info().name;
  const uint8_t more =
      static_cast<uint8_t>(std::min<size_t>(sites.size() - 1 - ask.nth, UINT8_MAX));
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
  if (!token.ok()) {
    VERBENA_LOG_LIMITED(strange_, kWarn, "select", "no port for ", caller.peer, ": ",
                        token.status().message());
    return Refuse(Reason::kFailed, absl::StrCat("the listener failed: ", token.status().message()));
  }
  auto listener = site.usable->provider->Listen(WithPort(site.address, 0), {.backlog = 4});
  if (!listener.ok()) {
    const absl::string_view why = listener.status().message();
    VERBENA_LOG_LIMITED(strange_, kWarn, "select", "no port for ", caller.peer, " on ", name, ": ",
                        why);
    failures_[site.usable] = std::string(why);
    return Refuse(Reason::kFailed, absl::StrCat("the listener's ", name, " failed: ", why), more);
  }
  failures_.erase(site.usable);
  std::vector<Candidate> failed;
  for (size_t i = 0; i < ask.nth; ++i) {
    const auto known = failures_.find(sites[i].usable);
    if (known == failures_.end()) continue;
    failed.push_back(Loser(known->first->device->info().name, known->second));
  }
  Answer answer;
  answer.link = site.usable->device->info().link;
  answer.address = site.address;
  answer.port = PortOf((*listener)->address());
  answer.token = *token;
  answer.more = more;
  offers_.push_back(
      {*std::move(listener), ask.purpose, *token, peer, now + kOfferTime, std::move(failed)});
  return answer;
}

std::vector<Offers::Arrival> Offers::Serve(absl::Duration now) {
  std::vector<Arrival> arrived;
  for (auto it = offers_.begin(); it != offers_.end();) {
    std::unique_ptr<provider::ConnectionRequest> request = it->listener->TryNext();
    if (request == nullptr && it->until > now) {
      ++it;
      continue;
    }
    if (request != nullptr && it->purpose == Purpose::kProof) {
      CheckProof(*it, std::move(request), now);
    } else if (request != nullptr) {
      arrived.push_back({std::move(request), std::move(it->failed)});
    }
    (void)it->listener->Close();  // used up, or too old
    it = offers_.erase(it);
  }
  std::erase_if(proofs_, [now](const Proof& each) {
    const QpState state = each.probe->qp().Query().state;
    return each.until <= now || state == QpState::kErr || state == QpState::kReset;
  });
  return arrived;
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
