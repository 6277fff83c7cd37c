// SPDX-License-Identifier: Apache-2.0
#include "connect/rendezvous.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "connect/limits.h"
#include "connect/probe.h"
#include "transport/handle.h"
#include "transport/log.h"

namespace verbena::connect {
namespace {

constexpr const char* kPlain = "called straight: the peer's listener does not select";
constexpr const char* kItSays = "called straight: it is iWARP's own way to a peer without RDMA";
constexpr const char* kSilent = "called straight: nobody answers there over TCP";

constexpr const char* kNotOffered = "the listener offered no way that begins at it";

// A device that was tried twice has two reasons.
void Note(std::vector<Candidate>* tried, const std::string& device, const std::string& why) {
  for (Candidate& each : *tried) {
    if (each.device != device) continue;
    absl::StrAppend(&each.reason, "; ", why);
    return;
  }
  tried->push_back(Loser(device, why));
}

// What the listener says counts as its own; an unknown code of a later version is a failure.
Reason Known(Reason reason) { return reason <= Reason::kMalformed ? reason : Reason::kFailed; }

}  // namespace

absl::StatusOr<Answer> Rendezvous::AskPeer(provider::Path& via, const Ask& ask,
                                           absl::Duration deadline) {
  provider::Selection selection;
  selection.rendezvous = true;
  via.Announce(selection);
  auto probe = Probe::Make(core_.base().devices().front(), tag_);
  if (!probe.ok()) return probe.status();
  const ConnectOutcome outcome =
      (*probe)->Connect(via, Encode(ask), std::min(deadline, kRendezvousTime), core_.base());
  if (outcome.kind == ConnectOutcome::Kind::kEstablished) {  // no error that could be passed on
    return absl::FailedPreconditionError("the peer took the question for a connection");
  }
  if (outcome.kind != ConnectOutcome::Kind::kRejected) return outcome.status;
  if (std::optional<Answer> answer = DecodeAnswer(outcome.private_data)) return *answer;
  return absl::FailedPreconditionError("the peer's listener does not offer RDMA");
}

Ask Rendezvous::Question(Purpose purpose, uint8_t nth) const {
  return {purpose, core_.links(), nth, core_.addresses()};
}

absl::StatusOr<std::unique_ptr<provider::Path>> Rendezvous::Route(const Answer& answer,
                                                                  const provider::Device* device,
                                                                  absl::Duration deadline) {
  absl::Status last = absl::FailedPreconditionError(
      absl::StrCat("no device here has the peer's link, ", LinkName(answer.link)));
  const std::string to = WithPort(answer.address, answer.port);
  provider::Context* asked = nullptr;
  const Ask near{.links = LinkBit(answer.link), .addresses = {answer.address}};
  for (const Site& site : core_.Nearest(near, answer.address)) {
    const Usable& each = *site.usable;
    if (each.provider == asked || (device != nullptr && each.device != device)) continue;
    asked = each.provider;
    auto path = each.provider->Resolve(to, {.deadline = deadline});
    if (!path.ok()) {
      last = path.status();
    } else if (device != nullptr && (*path)->device() != device) {
      last = absl::UnavailableError(absl::StrCat("the route to ", to, " is now on ",
                                                 (*path)->device()->info().name, ", not on ",
                                                 device->info().name));
      (void)(*path)->Close();
    } else {
      return *std::move(path);
    }
  }
  return last;
}

absl::StatusOr<provider::Device*> Rendezvous::Try(const Answer& answer, absl::Duration time,
                                                  std::string* tried) {
  const absl::Duration start = core_.base().Now();
  auto made = Route(answer, nullptr, time);
  if (!made.ok()) return made.status();
  const Handle<provider::Path> path(*std::move(made));
  provider::Device* device = path.impl()->device();
  *tried = device->info().name;
  auto probe = Probe::Make(device, tag_);
  if (!probe.ok()) return probe.status();
  const std::string token(answer.token.begin(), answer.token.end());
  const absl::Duration left = time - (core_.base().Now() - start);
  const ConnectOutcome outcome =
      (*probe)->Connect(*path.impl(), token, std::max(left, absl::ZeroDuration()), core_.base());
  if (outcome.kind == ConnectOutcome::Kind::kEstablished) return device;
  const std::string to = ToText(answer.address);
  if (outcome.kind == ConnectOutcome::Kind::kRejected) {
    return absl::AbortedError(absl::StrCat(to, " rejected the proof"));
  }
  if (absl::IsDeadlineExceeded(outcome.status)) {
    return absl::DeadlineExceededError(
        absl::StrCat("no answer from ", to, " within ", absl::FormatDuration(time)));
  }
  return absl::UnavailableError(absl::StrCat("cannot reach ", to, ": ", outcome.status.message()));
}

std::vector<Candidate> Rendezvous::Reasons(const std::string& why,
                                           const std::vector<Candidate>& tried) const {
  std::vector<Candidate> all = core_.Everyone(why);
  for (Candidate& each : all) {
    for (const Candidate& known : tried) {
      if (known.device == each.device) each.reason = known.reason;
    }
  }
  return all;
}

std::vector<Candidate> Rendezvous::Lost(const std::string& address, Reason reason,
                                        const std::string& why,
                                        const std::vector<Candidate>& tried) {
  core_.CountRefusal(reason);
  const std::vector<Candidate> losers = Reasons(why, tried);
  for (const Candidate& each : losers) {
    VERBENA_LOG(kInfo, "select", "resolve ", address, ": not over ", each.device, ": ",
                each.reason);
  }
  return losers;
}

Verdict Rendezvous::Prove(provider::Path& via, const std::string& address,
                          absl::Duration deadline) {
  const absl::Duration start = core_.base().Now();
  if (std::optional<Verdict> known = memory_.Recall(address, start)) return *known;
  absl::StatusOr<Answer> answer = AskPeer(via, Question(Purpose::kProof, 0), deadline);
  if (!answer.ok()) {
    // Not remembered: nobody there, or somebody who hangs up as a listener does that is too busy.
    return {.losers = core_.Everyone(std::string(answer.status().message())),
            .plain = absl::IsFailedPrecondition(answer.status())};
  }
  Verdict verdict{.peer_selects = true};
  if (answer->reason == Reason::kNone || (answer->reason == Reason::kFailed && answer->more > 0)) {
    TryAll(via, address, *answer, &verdict);
  } else {
    verdict.losers = Lost(address, Known(answer->reason), answer->text, {});
  }
  if (answer->reason != Reason::kBusy) memory_.Remember(address, verdict, core_.base().Now());
  return verdict;
}

void Rendezvous::TryAll(provider::Path& via, const std::string& address, Answer answer,
                        Verdict* verdict) {
  const int ways = std::min<int>(answer.more, kWays - 1) + 1;
  const absl::Duration share = kProofTime / ways;
  Reason reason = Reason::kUnreachable;
  std::string of_others;  // why none of those is chosen that were not tried
  while (true) {
    std::string device, why = answer.text;
    if (answer.reason != Reason::kNone) {
      reason = Known(answer.reason);  // the listener's device failed, before one of ours was chosen
    } else {
      auto reached = Try(answer, share, &device);
      if (reached.ok()) {
        verdict->device = *reached;
        if (!of_others.empty()) verdict->losers = Reasons(of_others, verdict->losers);
        return;
      }
      if (absl::IsAborted(reached.status())) reason = Reason::kRefused;
      why = std::string(reached.status().message());
    }
    if (device.empty()) {
      of_others = why;
    } else {
      Note(&verdict->losers, device, why);
    }
    if (verdict->nth + 1 == ways) break;
    auto next = AskPeer(via, Question(Purpose::kProof, ++verdict->nth), share);
    if (!next.ok() || (next->reason != Reason::kNone && next->reason != Reason::kFailed)) break;
    answer = *std::move(next);
  }
  if (of_others.empty()) of_others = kNotOffered;
  verdict->losers = Lost(address, reason, of_others, verdict->losers);
}

std::unique_ptr<provider::Path> Rendezvous::Straight(Verdict* verdict, const std::string& address,
                                                     Rdma mode, absl::Duration deadline) {
  std::string tried;
  const auto may = [&](const provider::Device* device) {
    const bool iwarp = device->info().link == Link::kIwarp;
    return mode == Rdma::kRequired ? iwarp || !verdict->peer_selects : iwarp && verdict->plain;
  };
  const char* const reason = verdict->plain ? kPlain : verdict->peer_selects ? kItSays : kSilent;
  provider::Context* asked = nullptr;
  for (const Usable& each : core_.usable()) {
    if (!may(each.device) || each.provider == asked) continue;
    asked = each.provider;
    auto path = asked->Resolve(address, {.deadline = std::max(deadline, absl::ZeroDuration())});
    if (path.ok() && core_.Serves((*path)->device()) && may((*path)->device())) {
      provider::Selection selection;
      selection.candidates = core_.OnDevice(*(*path)->device(), reason, mode);
      (*path)->Announce(selection);
      return *std::move(path);
    }
    if (path.ok()) {
      (void)(*path)->Close();
    } else {
      absl::StrAppend(&tried, "; ", path.status().message());
    }
  }
  for (Candidate& each : verdict->losers) each.reason += tried;
  if (!verdict->peer_selects) {
    verdict->losers = Lost(address, verdict->plain ? Reason::kNotUnderstood : Reason::kUnreachable,
                           "", verdict->losers);
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<provider::Path>> Rendezvous::Redirected(provider::Path& via,
                                                                       const std::string& address,
                                                                       provider::Device* device,
                                                                       uint8_t nth,
                                                                       absl::Duration deadline) {
  const std::string name = device->info().name;
  absl::StatusOr<Answer> answer = AskPeer(via, Question(Purpose::kConnect, nth), deadline);
  absl::Status why = answer.status();
  if (answer.ok() && answer->reason == Reason::kBusy) {
    why = absl::ResourceExhaustedError(answer->text);
  } else if (answer.ok() && answer->reason != Reason::kNone) {
    why = absl::UnavailableError(answer->text);
  }
  if (why.ok()) {
    auto path = Route(*answer, device, std::min(deadline, kProofTime));
    if (path.ok()) return path;
    why = path.status();
  }
  if (!absl::IsResourceExhausted(why)) memory_.Forget(address);
  return absl::Status(why.code(), absl::StrCat("connect ", address, " over ", name, ": ",
                                               why.message(), ". Resolve the address again."));
}

}  // namespace verbena::connect
