// SPDX-License-Identifier: Apache-2.0
// How a queue pair gets its stream, and how it gives it back. All of it by the owner.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "fallback/io/socket_error.h"
#include "fallback/queue_pair.h"
#include "transport/log.h"

namespace verbena::fallback {

absl::Status QueuePair::CheckIdle() const {
  return provider::CheckIdle(absl::StrCat("connect qp ", number()), engine_.state(),
                             phase_ != Phase::kIdle);
}

absl::Status QueuePair::StartConnect(std::vector<io::Address> to,
                                     const ConnectParameters& parameters,
                                     const provider::Selection& selection,
                                     const ConnectionInfo& info) {
  if (absl::Status s = provider::CheckPrivateData("connect", parameters.private_data,
                                                  Device::Attributes().private_data_connect, "tcp");
      !s.ok()) {
    return s;
  }
  absl::Status result;
  WithOwnership([&] {
    result = CheckIdle();
    if (!result.ok()) return;
    engine::Offer offer{parameters.private_data, parameters.initiator_depth,
                        parameters.responder_resources, parameters.require, selection.rendezvous};
    offer.type = engine_.config().type;
    for (const Candidate& each : selection.candidates) {
      if (selection.tell_peer && !each.chosen) offer.note.push_back(each);
    }
    Begin(std::move(to), parameters, std::move(offer), info);
    TryNextAddress();
  });
  return result;
}

void QueuePair::Begin(std::vector<io::Address> to, const ConnectParameters& parameters,
                      engine::Offer offer, const ConnectionInfo& info) {
  connecting_ = std::make_unique<Connecting>();
  connecting_->addresses = std::move(to);
  connecting_->parameters = parameters;
  connecting_->offer = std::move(offer);
  {
    std::lock_guard lock(mutex_);
    outcome_ = {};
    info_ = info;
  }
  engine_.SetRetry(std::min<uint8_t>(parameters.rnr_retry, 7),
                   std::min<uint8_t>(parameters.retry_count.value_or(kDefaultRetryCount), 7),
                   std::min<uint8_t>(parameters.timeout.value_or(kDefaultTimeout), 31));
  deadline_ = device_->hub().In(parameters.deadline);
  device_->hub().SetDeadline(this, deadline_);
  device_->counts().connects.fetch_add(1);
}

// `revision`: for the next one; those behind it have not refused revision 2 yet.
void QueuePair::TryNextAddress(uint8_t revision) {
  while (connecting_->next < connecting_->addresses.size()) {
    connecting_->offer.revision = std::exchange(revision, 2);
    connecting_->current = connecting_->addresses[connecting_->next++];
    absl::StatusOr<io::Socket> socket =
        device_->hub().streams().Connect(connecting_->current, device_->from());
    if (!socket.ok()) {
      connecting_->last_error = socket.status();
      continue;
    }
    socket_ = *socket;
    SetTrafficClass(connecting_->parameters.traffic_class);
    phase_ = Phase::kConnecting;
    connectable_.store(false, std::memory_order_release);
    watching_write_ = true;
    device_->hub().Watch(this, socket_, false, true);
    if (connecting_->meeting != nullptr) BoundTry();
    return;
  }
  ConnectFailed(connecting_->last_error, false);
}

void QueuePair::ContinueConnect() {
  if (connecting_->meeting != nullptr) {
    Meet();
    if (connecting_ == nullptr) return;
  } else {
    device_->hub().SetDeadline(this, deadline_);  // whoever scheduled this drive has replaced it
  }
  io::Streams& streams = device_->hub().streams();
  if (phase_ == Phase::kConnecting) {
    if (!connectable_.load(std::memory_order_acquire)) return;
    if (absl::Status s = streams.ConnectResult(socket_); !s.ok()) return ConnectFailed(s, true);
    // Small, and the first bytes of the stream: they fit the socket's buffer.
    const std::vector<std::byte> request = engine::EncodeRequest(connecting_->offer);
    const iovec v{const_cast<std::byte*>(request.data()), request.size()};
    const ssize_t n = streams.Send(socket_, {&v, 1});
    if (n != static_cast<ssize_t>(request.size())) {
      unsent_request_.assign(request.begin() + std::max<ssize_t>(n, 0), request.end());
      if (n < 0 && n != -EAGAIN) {
        return ConnectFailed(absl::UnavailableError(std::strerror(static_cast<int>(-n))), true);
      }
    }
    phase_ = Phase::kAwaitingReply;
    connecting_->reader = {};
    device_->hub().ChangeWatch(this, socket_, true, !unsent_request_.empty());
  }
  if (phase_ != Phase::kAwaitingReply) return;
  if (!unsent_request_.empty()) {
    const iovec v{unsent_request_.data(), unsent_request_.size()};
    const ssize_t n = streams.Send(socket_, {&v, 1});
    if (n > 0) unsent_request_.erase(unsent_request_.begin(), unsent_request_.begin() + n);
    device_->hub().ChangeWatch(this, socket_, true, !unsent_request_.empty());
  }
  for (;;) {
    const std::span<std::byte> space = connecting_->reader.Space();
    const iovec v{space.data(), space.size()};
    const ssize_t n = streams.Receive(socket_, {&v, 1});
    if (n == -EAGAIN) return;
    const std::string peer = connecting_->current.ToString();
    if (n <= 0) {
      const absl::Status left = io::WithErrno(
          absl::UnavailableError(absl::StrCat(
              "connect ", peer, ": the peer closed the connection during the hand-shake",
              n < 0 ? absl::StrCat(" (", std::strerror(static_cast<int>(-n)), ")") : "",
              ". Is it a Verbena or iWARP listener, and the port right?")),
          ECONNRESET);
      if (connecting_->offer.rendezvous) {  // so does every iWARP stack, and other services
        return ConnectFailed(absl::FailedPreconditionError("the peer's listener does not select"),
                             false);
      }
      if (!MayTryRevisionOne(n)) return ConnectFailed(left, false);
      VERBENA_LOG(kInfo, "connect", "qp ", number(), ": ", peer,
                  " hung up on MPA revision 2; trying revision 1");
      connecting_->last_error = left;
      --connecting_->next;
      DropSocket(true);
      return TryNextAddress(1);
    }
    absl::StatusOr<bool> complete = connecting_->reader.Received(static_cast<size_t>(n));
    if (!complete.ok()) {
      return ConnectFailed(
          absl::UnavailableError(absl::StrCat("connect ", peer, ": the answer is no iWARP one: ",
                                              complete.status().message(), ". Is the port right?")),
          false);
    }
    if (*complete) break;
  }
  TakeReply();
}

// A peer that knows revision 1 alone hangs up on another, and does not say why (cxgb4's driver,
// cm.c process_mpa_request). What only Verbena ends say to each other is not said a second time.
bool QueuePair::MayTryRevisionOne(ssize_t received) const {
  const engine::Offer& offer = connecting_->offer;
  return (received == 0 || received == -ECONNRESET) && offer.revision == 2 &&
         connecting_->meeting == nullptr && !offer.rendezvous && offer.note.empty() &&
         connecting_->reader.frame().empty() && device_->hub().Now() < deadline_;
}

void QueuePair::TakeReply() {
  io::Streams& streams = device_->hub().streams();
  absl::StatusOr<engine::PeerReply> reply =
      engine::DecodeReply(connecting_->reader.frame(), connecting_->offer);
  // What a peer answers is no mistake of the call: only what one end lacks cannot be tried again.
  const auto named = [this](const absl::Status& why) {
    const bool lacks = connecting_->meeting == nullptr && absl::IsFailedPrecondition(why);
    return absl::Status(
        lacks ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable,
        absl::StrCat("connect ", connecting_->current.ToString(), ": ", why.message()));
  };
  // Out of band nobody has proved yet to be the peer, and a stranger's answer ends only this try.
  if (!reply.ok()) return ConnectFailed(named(reply.status()), false);
  if (connecting_->meeting != nullptr && !AnswerIsTheirs(&*reply)) {
    return ConnectFailed(
        absl::UnavailableError(absl::StrCat(
            connecting_->current.ToString(), ": ",
            reply->rejected ? PlainText(reply->private_data) : "the answer is not the peer's")),
        false);
  }
  if (!reply->refused.ok()) {
    device_->hub().poller().Unwatch(socket_);
    device_->hub().Linger(std::exchange(socket_, io::kNoSocket), std::move(reply->parting));
    return ConnectFailed(named(reply->refused), false);
  }
  if (reply->rejected && reply->own_peer && connecting_->offer.revision == 1) {
    // It knows revision 2: the first attempt was cut off, and that is what came of this connect.
    return ConnectFailed(absl::Status(connecting_->last_error), false);
  }
  if (reply->rejected) {
    const std::string text = absl::StrCat(
        "connect ", connecting_->current.ToString(), ": the peer rejected",
        reply->private_data.empty() ? "" : ": ", absl::Utf8SafeCHexEscape(reply->private_data));
    device_->counts().rejects.fetch_add(1);
    CloseConnecting();
    return ConnectDone(
        {ConnectOutcome::Kind::kRejected, reply->private_data, absl::AbortedError(text)},
        EventType::kRejected);
  }
  {
    std::lock_guard lock(mutex_);
    info_.local = streams.Local(socket_).ToString();
    info_.peer = streams.Peer(socket_).ToString();
    info_.own_peer = reply->own_peer;
  }
  const ConnectParameters parameters = connecting_->parameters;
  connecting_.reset();
  SetLiveness(parameters.timeout, parameters.retry_count);
  Attach(reply->session);
  ConnectDone({ConnectOutcome::Kind::kEstablished, reply->private_data, absl::OkStatus()},
              EventType::kEstablished);
  device_->hub().ChangeWatch(this, socket_, true, false);
  watching_write_ = false;
  SendSome(true, device_->hub().Now());
  UpdateWatch();
}

void QueuePair::ConnectFailed(const absl::Status& why, bool try_next) {
  if (connecting_ == nullptr) return;
  const bool meeting = connecting_->meeting != nullptr;
  const bool final = absl::IsCancelled(why) || absl::IsFailedPrecondition(why) ||
                     device_->hub().Now() >= deadline_;
  if (meeting && !final) return EndTry(why);
  if (!meeting || !absl::IsDeadlineExceeded(why)) connecting_->last_error = why;
  DropSocket(true);
  phase_ = Phase::kIdle;
  if (try_next && connecting_->next < connecting_->addresses.size()) return TryNextAddress();
  absl::Status status = connecting_->last_error;
  if (meeting && absl::IsDeadlineExceeded(why)) {
    status = NotMet();
  } else if (absl::IsDeadlineExceeded(why)) {
    status = absl::DeadlineExceededError(
        absl::StrCat("connect ", connecting_->current.ToString(), ": no answer within ",
                     absl::FormatDuration(connecting_->parameters.deadline),
                     ". Does something else listen there, or does a firewall drop packets?"));
  }
  CloseConnecting();
  device_->counts().handshake_failures.fetch_add(1);
  ConnectDone({ConnectOutcome::Kind::kUnreachable, "", status}, EventType::kUnreachable);
}

void QueuePair::CloseConnecting() {
  if (connecting_ == nullptr) return;
  DropSocket(false);
  connecting_.reset();
  phase_ = Phase::kIdle;
  deadline_ = io::kNever;
  device_->hub().SetDeadline(this, io::kNever);
}

void QueuePair::DropSocket(bool reset) {
  unsent_request_.clear();
  if (socket_ == io::kNoSocket) return;
  device_->hub().poller().Unwatch(socket_);
  device_->hub().streams().Close(socket_, reset);
  socket_ = io::kNoSocket;
}

void QueuePair::ConnectDone(ConnectOutcome outcome, EventType type) {
  VERBENA_LOG(kInfo, "connect", "qp ", number(), ": ", EventTypeName(type),
              outcome.status.ok() ? "" : ": ", std::string(outcome.status.message()));
  // Nobody waits for the outcome, but for requests: as if the peer had gone.
  if (engine_.unmanaged() && type != EventType::kEstablished) engine_.PeerLeft();
  Event e;
  e.type = type;
  e.context = context_;
  e.qp_number = number();
  e.private_data = outcome.private_data;
  e.status = outcome.status;
  {
    std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
  }
  device_->Push(this, std::move(e));
  device_->hub().world().Changed();
}

engine::Offer QueuePair::OfferOf(const AcceptParameters& parameters) const {
  return {.private_data = parameters.private_data,
          .initiator_depth = parameters.initiator_depth,
          .responder_resources = parameters.responder_resources,
          .require = parameters.require,
          .type = engine_.config().type};
}

absl::Status QueuePair::Accept(io::Socket socket, const engine::PeerRequest& peer,
                               const AcceptParameters& parameters, const ConnectionInfo& info) {
  const engine::Offer offer = OfferOf(parameters);
  absl::StatusOr<engine::Session> session = engine::Agree(peer, offer);
  if (!session.ok()) return session.status();
  absl::Status result;
  WithOwnership([&] {
    result = CheckIdle();
    if (!result.ok()) return;
    const std::vector<std::byte> reply = engine::EncodeReply(peer, offer, *session);
    engine_.SetRetry(std::min<uint8_t>(parameters.rnr_retry, 7),
                     std::min<uint8_t>(parameters.retry_count.value_or(kDefaultRetryCount), 7),
                     std::min<uint8_t>(parameters.timeout.value_or(kDefaultTimeout), 31));
    socket_ = socket;
    SetTrafficClass(parameters.traffic_class);
    SetLiveness(parameters.timeout, parameters.retry_count);
    engine_.SendFirst(reply);
    {
      std::lock_guard lock(mutex_);
      info_ = info;
    }
    Attach(*session);
    watching_write_ = false;
    device_->hub().Watch(this, socket_, true, false);
    device_->counts().accepts.fetch_add(1);
  });
  return result;
}

void QueuePair::Attach(const engine::Session& session) {
  device_->hub().SetDeadline(this, io::kNever);
  deadline_ = lost_at_ = io::kNever;
  sent_farewell_ = false;
  phase_ = Phase::kStreaming;
  send_cq_->StreamBegins();
  if (receive_cq_ != send_cq_) receive_cq_->StreamBegins();
  last_traffic_ = device_->hub().Now();
  mss_due_ = 0;
  engine_.Connected(session);
  const std::lock_guard lock(mutex_);
  if (contact_) device_->meeting().Taken(engine::PlaceOf(contact_->nonce), contact_->nonce);
}

// Silence: the transport timer of InfiniBand, 4.096 µs × 2^timeout, once and for every retry
// (IBTA 9.7.6.1.3), becomes TCP's bound on unacknowledged data and on a silent idle peer.
void QueuePair::SetLiveness(std::optional<uint8_t> timeout, std::optional<uint8_t> retry_count) {
  const int code = std::min<int>(timeout.value_or(kDefaultTimeout), 31);
  if (code == 0) return;  // wait for ever
  const Nanos total =
      (Nanos{4096} << code) * (std::min<int>(retry_count.value_or(kDefaultRetryCount), 7) + 1);
  constexpr Nanos kLeast = 1'000'000'000;
  device_->hub().streams().SetLiveness(socket_, {std::max(total, kLeast), std::max(total, kLeast)});
}

void QueuePair::SetTrafficClass(uint8_t traffic_class) {
  traffic_class_.store(traffic_class, std::memory_order_relaxed);
  if (traffic_class != 0) device_->hub().streams().SetTrafficClass(socket_, traffic_class);
}

void QueuePair::EndStream() {
  Unwatch();
  wanted_set_.store(nullptr, std::memory_order_relaxed);
  send_cq_->StreamEnds();
  if (receive_cq_ != send_cq_) receive_cq_->StreamEnds();
  device_->hub().SetDeadline(this, io::kNever);
  device_->hub().Linger(socket_, engine_.TakeUnsent());
  engine_.Detach();
  socket_ = io::kNoSocket;
  phase_ = Phase::kIdle;
  deadline_ = io::kNever;
  device_->hub().world().Changed();
}

void QueuePair::DropStream() {
  (void)engine_.TakeUnsent();
  EndStream();
}

}  // namespace verbena::fallback
