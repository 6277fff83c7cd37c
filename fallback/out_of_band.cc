// SPDX-License-Identifier: Apache-2.0
// How two queue pairs that know each other's address meet: docs/decisions/0015-out-of-band.md. The
// end with the lower nonce dials at once, the other when it was not called for a while; who has
// been called answers. All of it by the owner, but contact().
#include <algorithm>
#include <bit>
#include <cerrno>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "fallback/meeting.h"
#include "fallback/queue_pair.h"

namespace verbena::fallback {
namespace {

constexpr Nanos kTurnOfTheOther = 300'000'000;  // before the higher nonce dials, and between tries
constexpr Nanos kAnswerIsLate = 1'000'000'000;  // of a call that is out, when another one waits
constexpr Nanos kNextAddress = 1'000'000'000;   // of a try, when there are more addresses
constexpr size_t kMaxAddresses = 8;
constexpr int kTriesForAPort = 10;

// An IPv4 address as such, as address.h promises.
io::Address ToAddress(const Ip& ip, uint16_t port) {
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  std::copy(ip.begin(), ip.end(), v6.sin6_addr.s6_addr);
  return io::Address::From(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
}

// Those of networks that this end is in come first.
std::vector<io::Address> InOrder(const Way& way, const std::vector<io::Address>& own) {
  std::vector<std::pair<int, io::Address>> rated;
  for (const Ip& ip : way.addresses) {
    int bits = 0;
    for (const io::Address& each : own) bits = std::max(bits, CommonBits(ip, each.bytes()));
    rated.emplace_back(-bits, ToAddress(ip, way.port));
  }
  std::stable_sort(rated.begin(), rated.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<io::Address> out;
  for (auto& each : rated) out.push_back(each.second);
  return out;
}

}  // namespace

absl::StatusOr<Contact> QueuePair::contact() {
  const absl::StatusOr<uint16_t> port = device_->meeting().Open();
  if (!port.ok()) {
    return absl::Status(port.status().code(),
                        absl::StrCat("address of qp ", number(), ": ", port.status().message()));
  }
  const std::lock_guard lock(mutex_);
  if (contact_) return *contact_;
  if (const QpState state = engine_.state(); state != QpState::kInit && state != QpState::kReset) {
    return absl::FailedPreconditionError(
        absl::StrCat("address of qp ", number(), ": it is in state ", QpStateName(state),
                     ", and an address is for one in INIT (modify it to RESET, then INIT)"));
  }
  Contact c;
  c.queue_pair = true;
  device_->hub().world().Random(c.nonce);
  Way way;
  way.device = device_->info().name;
  way.port = *port;
  way.qp_number = number();
  for (const io::Address& each : device_->Addresses()) {
    if (way.addresses.size() < kMaxAddresses) way.addresses.push_back(each.bytes());
  }
  c.ways = {std::move(way)};
  device_->meeting().Expect(engine::PlaceOf(c.nonce), this);
  contact_ = std::move(c);
  return *contact_;
}

void QueuePair::ForgetContact() {
  std::optional<Contact> former;
  {
    const std::lock_guard lock(mutex_);
    former.swap(contact_);
  }
  if (former) device_->meeting().Forget(engine::PlaceOf(former->nonce));
}

absl::Status QueuePair::Expect(const Contact& own) {
  const std::lock_guard lock(mutex_);
  device_->meeting().Expect(engine::PlaceOf(own.nonce), this);
  contact_ = own;
  return absl::OkStatus();
}

absl::Status QueuePair::Connect(const Contact& peer, const ConnectParameters& parameters) {
  absl::Status result;
  WithOwnership([&] { result = BeginMeeting(peer, parameters); });
  return result;  // letting go of it began the meeting: Work
}

absl::Status QueuePair::ConnectUnmanaged(const Contact& peer, const ConnectParameters& parameters) {
  absl::Status result;
  WithOwnership([&] {
    std::optional<Nonce> own;
    {
      const std::lock_guard lock(mutex_);
      if (contact_) own = contact_->nonce;
    }
    result = own == peer.nonce ? MeetItself(parameters) : BeginMeeting(peer, parameters);
    if (result.ok()) engine_.SetUnmanaged();
  });
  return result;
}

// One socket, which is its own far end (RFC 9293 3.5, simultaneous open): what is sent comes back.
// Both ends want the same, so there is nothing to agree about.
absl::Status QueuePair::MeetItself(const ConnectParameters& parameters) {
  if (absl::Status s = CheckIdle(); !s.ok()) return s;
  engine::Offer offer;
  offer.initiator_depth = parameters.initiator_depth;
  offer.responder_resources = parameters.responder_resources;
  offer.type = engine_.config().type;
  const auto request = engine::DecodeRequest(engine::EncodeRequest(offer));
  if (!request.ok()) return request.status();
  absl::StatusOr<engine::Session> session = engine::Agree(*request, offer);
  if (!session.ok()) return session.status();
  session->initiator = true;
  session->ready_frame = engine::ReadyFrame::kNone;
  io::Streams& streams = device_->hub().streams();
  for (int tries = 0; tries < kTriesForAPort && socket_ == io::kNoSocket; ++tries) {
    const absl::StatusOr<io::Address> loopback = io::Address::FromIp("127.0.0.1", 0);
    const absl::StatusOr<io::Socket> finder = streams.Listen(*loopback, 1);
    if (!finder.ok()) return finder.status();
    const io::Address at = streams.Local(*finder);
    streams.Close(*finder, true);
    const absl::StatusOr<io::Socket> socket = streams.Connect(at, at);
    if (!socket.ok()) continue;            // somebody else was quicker
    (void)streams.ConnectResult(*socket);  // which refuses it: elsewhere that is a mistake
    if (streams.Peer(*socket) == at) {
      socket_ = *socket;
    } else {
      streams.Close(*socket, true);
    }
  }
  if (socket_ == io::kNoSocket) {
    return absl::UnavailableError(
        absl::StrCat("connect qp ", number(), " to itself: no port could be had for it"));
  }
  SetLiveness(parameters.timeout, parameters.retry_count);
  device_->hub().Watch(this, socket_, true, false);
  watching_write_ = false;
  Attach(*session);
  return absl::OkStatus();
}

absl::Status QueuePair::Start(const QpModify& retry) {
  WithOwnership([&] {
    if (engine_.unreliable()) return engine_.Start();
    const QpAttributes now = engine_.Query();
    const uint8_t count = retry.retry_count.value_or(now.retry_count);
    const uint8_t timeout = retry.timeout.value_or(now.timeout);
    engine_.SetRetry(retry.rnr_retry.value_or(now.rnr_retry), count, timeout);
    if (phase_ == Phase::kStreaming) SetLiveness(timeout, count);
    engine_.Start();
  });
  return absl::OkStatus();
}

absl::Status QueuePair::BeginMeeting(const Contact& peer, const ConnectParameters& parameters) {
  if (absl::Status s = CheckIdle(); !s.ok()) return s;
  std::optional<Contact> mine;
  {
    const std::lock_guard lock(mutex_);
    mine = contact_;
  }
  if (!mine) {
    return absl::FailedPreconditionError(
        absl::StrCat("connect qp ", number(),
                     ": its own address was not taken yet, and the peer needs it. Call address() "
                     "first."));
  }
  if (absl::Status s = CheckPeer(*mine, peer); !s.ok()) return s;
  auto meeting = std::make_unique<Rendezvous>();
  meeting->place = engine::PlaceOf(mine->nonce);
  meeting->own = mine->nonce;
  meeting->peer = peer.nonce;
  meeting->mine = engine::CallOf(peer.nonce, mine->nonce);
  meeting->theirs = engine::CallOf(mine->nonce, peer.nonce);
  meeting->lower = mine->nonce < peer.nonce;
  meeting->dial_at = device_->hub().Now() + (meeting->lower ? 0 : kTurnOfTheOther);
  engine::Offer offer{
      .private_data = engine::EncodeCall({engine::PlaceOf(peer.nonce), meeting->mine}),
      .initiator_depth = parameters.initiator_depth,
      .responder_resources = parameters.responder_resources,
      .require = parameters.require,
      .out_of_band = true,
      .type = engine_.config().type};
  ConnectionInfo info;
  info.own_peer = true;
  info.candidates.push_back({device_->info().name, true, "both addresses are of this kind"});
  Begin(InOrder(peer.ways.front(), device_->Addresses()), parameters, std::move(offer), info);
  connecting_->meeting = std::move(meeting);
  phase_ = Phase::kMeeting;
  return absl::OkStatus();
}

// As if the request had been sent and not been acknowledged (IBTA 9.7.6.1.3). An unreliable one has
// no timer, and is given the usual one: on InfiniBand it would be lost at once, but there nobody
// has a stream to wait for.
Nanos QueuePair::GiveUpAt(Nanos now) const {
  if (engine_.outstanding() == 0) return io::kNever;
  QpAttributes q = engine_.Query();
  if (engine_.unreliable()) {
    q.timeout = kDefaultTimeout;
    q.retry_count = kDefaultRetryCount;
  }
  if (q.timeout == 0) return io::kNever;
  return now + (Nanos{4096} << q.timeout) * (q.retry_count + 1);
}

// The peer has gone. Who does not ask for anything need not know.
void QueuePair::AwaitLoss() {
  if (engine_.unreliable()) return engine_.PeerLost("it has left");
  if (lost_at_ != io::kNever) return;
  lost_at_ = GiveUpAt(device_->hub().Now());
  device_->hub().SetDeadline(this, lost_at_);
}

// One step, whatever brought it about: a call, the clock, the outcome of a try.
void QueuePair::Meet() {
  Rendezvous& m = *connecting_->meeting;
  const Nanos now = device_->hub().Now();
  if (engine_.unmanaged() && m.give_up_at == io::kNever) m.give_up_at = GiveUpAt(now);
  if (now >= m.give_up_at && engine_.unreliable()) {  // later ones may find it
    m.give_up_at = io::kNever;
    engine_.PeerLost("it did not come");
  }
  if (now >= m.give_up_at) {
    CloseConnecting();
    return engine_.PeerLost("it did not come");
  }
  if (device_->meeting().Has(m.place, m.theirs)) {
    // What is answered stands at both ends only if the other end does not take this end's call.
    const bool mine_may_stand = m.lower && phase_ == Phase::kAwaitingReply;
    if (mine_may_stand && m.yield_at == io::kNever) m.yield_at = now + kAnswerIsLate;
    if (!mine_may_stand || now >= m.yield_at) {
      AnswerCall();
      if (connecting_ == nullptr) return;
    }
  }
  if (phase_ == Phase::kAnswered) {
    AwaitConfirmation();
    if (connecting_ == nullptr) return;
  }
  if (phase_ == Phase::kConnecting && now >= m.next_at &&
      connecting_->next < connecting_->addresses.size() &&
      !connectable_.load(std::memory_order_acquire)) {
    EndTry(absl::DeadlineExceededError(
        absl::StrCat("no answer from ", connecting_->current.ToString(), " for a second")));
  }
  if (phase_ == Phase::kMeeting && now >= m.dial_at && connecting_->next == 0) TryNextAddress();
  if (connecting_ == nullptr) return;
  Nanos at = std::min(deadline_, m.give_up_at);
  if (phase_ == Phase::kMeeting) at = std::min(at, m.dial_at);
  if (phase_ == Phase::kConnecting && connecting_->next < connecting_->addresses.size()) {
    at = std::min(at, m.next_at);
  }
  if (phase_ == Phase::kAwaitingReply) at = std::min(at, m.yield_at);
  device_->hub().SetDeadline(this, at);
}

void QueuePair::BoundTry() {
  Nanos& next_at = connecting_->meeting->next_at;
  next_at = device_->hub().Now() + kNextAddress;
  device_->hub().SetDeadline(this, std::min(deadline_, next_at));
}

// A try came to nothing: the next address, or all of them again in a while.
void QueuePair::EndTry(const absl::Status& why) {
  connecting_->last_error = why;
  DropSocket(true);
  Rendezvous& m = *connecting_->meeting;
  m.yield_at = io::kNever;
  phase_ = Phase::kMeeting;
  if (connecting_->next < connecting_->addresses.size()) return TryNextAddress();
  connecting_->next = 0;
  m.dial_at = device_->hub().Now() + kTurnOfTheOther;
  device_->hub().SetDeadline(this, std::min(deadline_, m.dial_at));
}

// The caller may have given up, and its call stayed: until it confirms (the frame with which an
// initiator begins, RFC 6581 9), nothing is decided and the queue pair stays in INIT.
void QueuePair::AnswerCall() {
  Rendezvous& m = *connecting_->meeting;
  std::optional<Caller> caller = device_->meeting().Take(m.place, m.theirs);
  if (!caller) return;
  DropSocket(true);
  phase_ = Phase::kMeeting;
  engine::Offer offer = connecting_->offer;
  offer.private_data = engine::Text(engine::AnswerTo(m.own, m.theirs));
  absl::StatusOr<engine::Session> session = engine::Agree(caller->request, offer);
  if (!session.ok()) {
    const size_t room = Device::Attributes().private_data_reject - offer.private_data.size();
    absl::StrAppend(&offer.private_data, session.status().message().substr(0, room));
    device_->hub().Linger(caller->socket,
                          engine::EncodeReject(caller->request, offer.private_data));
    return ConnectFailed(session.status(), false);
  }
  m.session = *session;
  unsent_request_ = engine::EncodeReply(caller->request, offer, *session);
  socket_ = caller->socket;
  SetTrafficClass(connecting_->parameters.traffic_class);
  phase_ = Phase::kAnswered;
  device_->hub().Watch(this, socket_, true, true);
}

void QueuePair::AwaitConfirmation() {
  io::Streams& streams = device_->hub().streams();
  const Nanos now = device_->hub().Now();
  if (!unsent_request_.empty()) {
    const iovec v{unsent_request_.data(), unsent_request_.size()};
    const ssize_t n = streams.Send(socket_, {&v, 1});
    if (n < 0 && n != -EAGAIN) return EndTry(absl::UnavailableError("the peer left"));
    if (n > 0) unsent_request_.erase(unsent_request_.begin(), unsent_request_.begin() + n);
    device_->hub().ChangeWatch(this, socket_, true, !unsent_request_.empty());
  }
  std::byte first;
  const iovec v{&first, 1};
  const ssize_t n = streams.Receive(socket_, {&v, 1});
  if (n == -EAGAIN) return;
  if (n <= 0 || !unsent_request_.empty()) return EndTry(absl::UnavailableError("the peer left"));
  const engine::Session session = connecting_->meeting->session;
  const ConnectParameters parameters = connecting_->parameters;
  connecting_.reset();
  SetLiveness(parameters.timeout, parameters.retry_count);
  {
    const std::lock_guard lock(mutex_);
    info_.local = streams.Local(socket_).ToString();
    info_.peer = streams.Peer(socket_).ToString();
    outcome_.kind = ConnectOutcome::Kind::kEstablished;
  }
  Attach(session);
  watching_write_ = false;
  device_->counts().accepts.fetch_add(1);
  iovec space[engine::kMaxSge + 1];
  (void)engine_.ReceiveSpace(space, engine::kMaxSge + 1);
  *static_cast<std::byte*>(space[0].iov_base) = first;
  engine_.Received(1, now);
  ServeStream(Why::kReady, now);  // the rest of it: the engine says kEstablished then
  device_->hub().world().Changed();
}

bool QueuePair::AnswerIsTheirs(engine::PeerReply* reply) const {
  const std::string proof =
      engine::Text(engine::AnswerTo(connecting_->meeting->peer, connecting_->meeting->mine));
  if (!absl::StartsWith(reply->private_data, proof)) return false;
  reply->private_data.erase(0, proof.size());
  return true;
}

absl::Status QueuePair::NotMet() const {
  std::string tried;
  if (!connecting_->last_error.ok()) {
    tried = absl::StrCat("; the latest try: ", connecting_->last_error.message());
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "connect qp ", number(), " out of band: the peer did not come within ",
      absl::FormatDuration(connecting_->parameters.deadline), tried,
      ". Does it connect to the address that this queue pair gave, and does a firewall let one of "
      "both ends reach the other?"));
}

}  // namespace verbena::fallback
