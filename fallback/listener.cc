// SPDX-License-Identifier: Apache-2.0
#include "fallback/listener.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "fallback/datagram_queue_pair.h"
#include "fallback/meeting.h"
#include "fallback/queue_pair.h"
#include "transport/datagram_checks.h"

namespace verbena::fallback {

namespace {
constexpr int kAcceptsPerTurn = 64;
constexpr Nanos kPause = 100'000'000;  // without descriptors: look away, else the socket spins
}  // namespace

absl::StatusOr<std::unique_ptr<provider::Listener>> Listener::Create(Device* device,
                                                                     const std::string& address,
                                                                     const ListenOptions& options) {
  return Make(device, address, options, nullptr);
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::CreateHidden(Device* device, Meeting* meeting) {
  return Make(device, ":0", {}, meeting);
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Make(Device* device, const std::string& address,
                                                         const ListenOptions& options,
                                                         Meeting* meeting) {
  absl::StatusOr<provider::HostPort> where = provider::ParseHostPort(address);
  if (!where.ok()) return where.status();
  if (where->host.empty() && !device->from().empty()) {
    where = provider::ParseHostPort(device->from().ToString());
    where->port = provider::ParseHostPort(address)->port;
  }
  absl::StatusOr<std::vector<io::Address>> addresses = provider::Lookup(*where, true);
  if (!addresses.ok()) return addresses.status();
  absl::Status last = absl::NotFoundError(absl::StrCat("listen ", address, ": no address"));
  for (const io::Address& a : *addresses) {
    absl::StatusOr<io::Socket> socket = device->hub().streams().Listen(a, options.backlog);
    if (!socket.ok()) {
      last = socket.status();
      continue;
    }
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
      device->hub().streams().Close(*socket, false);
      return provider::NoDescriptor(absl::StrCat("listen ", address), errno);
    }
    return std::make_unique<Listener>(device, *socket, fd, options, meeting);
  }
  return last;
}

Listener::Listener(Device* device, io::Socket socket, int fd, const ListenOptions& options,
                   Meeting* meeting)
    : device_(device), socket_(socket), fd_(fd), options_(options), meeting_(meeting) {
  if (meeting_ == nullptr) device_->children().Add();
  device_->hub().Add(this);
  device_->hub().Watch(this, socket_, true, false);
}

absl::Status Listener::Close() {
  device_->hub().poller().Unwatch(socket_);
  device_->hub().Remove(this);
  absl::flat_hash_map<Handshake*, std::unique_ptr<Handshake>> handshakes;
  std::deque<std::unique_ptr<ConnectionRequest>> requests;
  {
    std::lock_guard lock(mutex_);
    handshakes.swap(handshakes_);
    requests.swap(requests_);
  }
  for (auto& [h, owned] : handshakes) {
    // Waits for what it may be telling us just now; it has given its socket away then.
    device_->hub().Remove(h);
    if (h->socket_ == io::kNoSocket) continue;
    device_->hub().poller().Unwatch(h->socket_);
    device_->hub().streams().Close(h->socket_, false);
  }
  for (auto& request : requests) (void)request->Close();
  device_->hub().streams().Close(socket_, false);
  return absl::OkStatus();
}

Listener::~Listener() {
  close(fd_);
  if (meeting_ == nullptr) device_->children().Remove();
}

std::string Listener::address() const { return device_->hub().streams().Local(socket_).ToString(); }

ListenerCounters Listener::counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

std::unique_ptr<provider::ConnectionRequest> Listener::TryNext() {
  std::lock_guard lock(mutex_);
  if (requests_.empty()) return nullptr;
  std::unique_ptr<ConnectionRequest> request = std::move(requests_.front());
  requests_.pop_front();
  uint64_t count;
  if (requests_.empty()) (void)!read(fd_, &count, sizeof(count));
  return request;
}

void Listener::OnReady(bool, bool) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    const int socket = device_->hub().streams().Accept(socket_);
    if (socket == -EAGAIN) return;
    if (socket == -EMFILE || socket == -ENFILE || socket == -ENOMEM || socket == -ENOBUFS) {
      VERBENA_LOG(kWarn, "connect", "listen ", address(), ": cannot accept (",
                  std::strerror(-socket), "); waiting. Raise the limit: `ulimit -n`");
      device_->hub().ChangeWatch(this, socket_, false, false);
      device_->hub().SetDeadline(this, device_->hub().Now() + kPause);
      return;
    }
    if (socket < 0) continue;  // that peer is gone
    auto handshake = std::make_unique<Handshake>(this, socket);
    Handshake* h = handshake.get();
    {
      std::lock_guard lock(mutex_);
      if (handshakes_.size() + requests_.size() >= static_cast<size_t>(options_.backlog)) {
        ++counters_.refused;
        device_->hub().streams().Close(socket, true);
        continue;
      }
      handshakes_.emplace(h, std::move(handshake));
    }
    device_->hub().Add(h);
    device_->hub().SetDeadline(
        h, device_->hub().Now() + absl::ToInt64Nanoseconds(options_.handshake_deadline));
    device_->hub().Watch(h, socket, true, false);
  }
}

void Listener::OnDeadline() { device_->hub().ChangeWatch(this, socket_, true, false); }

void Handshake::OnReady(bool, bool) {
  io::Streams& streams = listener_->device()->hub().streams();
  for (;;) {
    const std::span<std::byte> space = reader_.Space();
    const iovec v{space.data(), space.size()};
    const ssize_t n = streams.Receive(socket_, {&v, 1});
    if (n == -EAGAIN) return;
    if (n <= 0) return listener_->Refused(this, "it left before its request was whole");
    absl::StatusOr<bool> complete = reader_.Received(static_cast<size_t>(n));
    if (!complete.ok()) return listener_->Refused(this, std::string(complete.status().message()));
    if (!*complete) continue;
    absl::StatusOr<engine::PeerRequest> peer = engine::DecodeRequest(reader_.frame());
    if (!peer.ok()) {
      return listener_->Refused(this, std::string(peer.status().message()),
                                engine::EncodeRefusal(reader_.frame(), peer.status()));
    }
    return listener_->Arrived(this, *std::move(peer));
  }
}

void Handshake::OnDeadline() { listener_->Refused(this, "it said nothing in time"); }

io::Socket Listener::TakeSocket(Handshake* handshake) {
  device_->hub().poller().Unwatch(handshake->socket_);
  return std::exchange(handshake->socket_, io::kNoSocket);
}

void Listener::Finish(Handshake* handshake, std::unique_ptr<ConnectionRequest> request) {
  Device* const device = device_;  // the listener may be gone once the handshake is
  device->hub().Remove(handshake);
  std::unique_ptr<Handshake> owned;
  {
    std::lock_guard lock(mutex_);
    const auto it = handshakes_.find(handshake);
    if (it != handshakes_.end()) {
      owned = std::move(it->second);
      handshakes_.erase(it);
      if (request != nullptr) {
        ++counters_.requests;
        requests_.push_back(std::move(request));
        const uint64_t one = 1;
        if (requests_.size() == 1) (void)!write(fd_, &one, sizeof(one));
      }
    }
  }
  if (owned == nullptr) {  // Close has it, and waits
    if (request != nullptr) (void)request->Close();
    return;
  }
  device->hub().Retire(std::move(owned));
  device->Changed();
}

void Listener::Arrived(Handshake* handshake, engine::PeerRequest peer) {
  // What only who composes providers can answer is for nobody else to see.
  const bool selects = options_.rdma.value_or(Rdma::kOff) != Rdma::kOff;
  if (peer.rendezvous && !selects) {
    return Decline(handshake, peer, "no RDMA device is in use by this listener");
  }
  if (peer.out_of_band && meeting_ == nullptr) {
    return Decline(handshake, peer, "this listener takes no out-of-band connections");
  }
  if (peer.own_peer && peer.frame.revision == 1) {
    return Decline(handshake, peer,
                   "the first attempt ended without an answer from here; connect again");
  }
  const io::Socket socket = TakeSocket(handshake);
  if (meeting_ != nullptr) {
    meeting_->Arrived(socket, std::move(peer));
    return Finish(handshake);
  }
  io::Streams& streams = device_->hub().streams();
  ConnectionInfo info;
  info.local = streams.Local(socket).ToString();
  info.peer = streams.Peer(socket).ToString();
  info.own_peer = peer.own_peer;
  info.candidates = peer.note;
  info.candidates.push_back(
      {device_->info().name, true, "the caller came over TCP, and no RDMA device is in use"});
  VERBENA_LOG(kInfo, "connect", "listen ", info.local, ": request from ", info.peer,
              peer.own_peer ? "" : " (a plain iWARP peer)");
  Finish(handshake,
         std::make_unique<ConnectionRequest>(device_, socket, std::move(peer), std::move(info)));
}

void Listener::Decline(Handshake* handshake, const engine::PeerRequest& peer, const char* why) {
  const io::Socket socket = TakeSocket(handshake);
  VERBENA_LOG(kInfo, "connect", "listen ", address(), ": rejected ",
              device_->hub().streams().Peer(socket).ToString(), ": ", why);
  device_->hub().Linger(socket, engine::EncodeReject(peer, why));
  device_->counts().rejects.fetch_add(1);
  Finish(handshake);
}

void Listener::Refused(Handshake* handshake, const std::string& why,
                       std::vector<std::byte> answer) {
  const io::Socket socket = TakeSocket(handshake);
  io::Streams& streams = device_->hub().streams();
  VERBENA_LOG_LIMITED(refusals_, kWarn, "connect", "listen ", address(), ": refused ",
                      streams.Peer(socket).ToString(), ": ", why);
  if (answer.empty()) {
    streams.Close(socket, false);
  } else {
    device_->hub().Linger(socket, std::move(answer));
  }
  {
    std::lock_guard lock(mutex_);
    ++counters_.refused;
  }
  device_->counts().handshake_failures.fetch_add(1);
  Finish(handshake);
}

ConnectionRequest::ConnectionRequest(Device* device, io::Socket socket, engine::PeerRequest peer,
                                     ConnectionInfo info)
    : device_(device), socket_(socket), peer_(std::move(peer)), info_(std::move(info)) {
  device_->children().Add();
}

ConnectionRequest::~ConnectionRequest() { device_->children().Remove(); }

absl::Status ConnectionRequest::CheckOpen(const char* what) const {
  if (socket_ != io::kNoSocket) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what, " ", info_.peer, ": the request was answered already"));
}

absl::Status ConnectionRequest::Close() {
  if (socket_ != io::kNoSocket) (void)Reject("");
  return absl::OkStatus();
}

absl::Status ConnectionRequest::Accept(provider::QueuePair& qp,
                                       const AcceptParameters& parameters) {
  if (absl::Status s = CheckOpen("accept"); !s.ok()) return s;
  if (dynamic_cast<DatagramQueuePair*>(&qp) != nullptr) {
    return provider::HasNoPeer("accept");
  }
  auto* mine = dynamic_cast<QueuePair*>(&qp);
  if (mine == nullptr || mine->device() != device_) {
    return provider::OtherDevice(absl::StrCat("accept ", info_.peer), "request");
  }
  if (absl::Status s = provider::CheckPrivateData("accept", parameters.private_data,
                                                  Device::Attributes().private_data_accept, "tcp");
      !s.ok()) {
    return s;
  }
  // A caller that has left shows as an end of stream, and nothing can be behind its request.
  std::byte scrap;
  const iovec v{&scrap, 1};
  const ssize_t n = device_->hub().streams().Receive(socket_, {&v, 1});
  if (n != -EAGAIN) {
    device_->hub().streams().Close(socket_, true);
    socket_ = io::kNoSocket;
    return absl::UnavailableError(
        absl::StrCat("accept ", info_.peer,
                     n > 0 ? ": the peer sent data before the answer" : ": the peer has left"));
  }
  absl::Status s = mine->Accept(socket_, peer_, parameters, info_);
  if (s.ok()) {
    socket_ = io::kNoSocket;
  } else if (!engine::Agree(peer_, mine->OfferOf(parameters)).ok()) {
    // No mistake of the application's: one end requires what the other lacks, and the peer learns
    // it.
    (void)Reject(std::string(s.message()).substr(0, Device::Attributes().private_data_reject));
  }
  return s;
}

absl::Status ConnectionRequest::Reject(const std::string& private_data) {
  if (absl::Status s = CheckOpen("reject"); !s.ok()) return s;
  if (absl::Status s = provider::CheckPrivateData("reject", private_data,
                                                  Device::Attributes().private_data_reject, "tcp");
      !s.ok()) {
    return s;
  }
  device_->counts().rejects.fetch_add(1);
  device_->hub().Linger(socket_, engine::EncodeReject(peer_, private_data));
  socket_ = io::kNoSocket;
  return absl::OkStatus();
}

}  // namespace verbena::fallback
