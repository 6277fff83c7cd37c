// SPDX-License-Identifier: Apache-2.0
// Connecting, listening, and what becomes of it.
#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "dropin/cm_id.h"
#include "dropin/connection_manager.h"
#include "dropin/errors.h"
#include "fallback/io/socket_error.h"
#include "transport/log.h"

namespace verbena::dropin {
namespace {

// Reasons of InfiniBand's CM (IBTA 12.6.7.2), as events carry them.
constexpr int kNoListener = 8;
constexpr int kConsumerReject = 28;

constexpr uint8_t kMostReads = 128;

// On devices it takes its time to resolve a peer, and programs (perftest -R) have come to rely on
// it: they connect to a listener that is about to be there.
constexpr absl::Duration kPatience = absl::Milliseconds(500);
constexpr absl::Duration kBetweenTries = absl::Milliseconds(10);

std::string DataOf(const rdma_conn_param* p) {
  if (p == nullptr || p->private_data == nullptr) return {};
  return {static_cast<const char*>(p->private_data), p->private_data_len};
}

// RDMA_MAX_RESP_RES and RDMA_MAX_INIT_DEPTH stand for as many as there are.
uint8_t Depth(uint8_t asked) { return std::min(asked, kMostReads); }

template <typename Parameters>
Parameters ParametersOf(const rdma_conn_param* p) {
  Parameters out;
  out.private_data = DataOf(p);
  if (p != nullptr) {
    out.initiator_depth = Depth(p->initiator_depth);
    out.responder_resources = Depth(p->responder_resources);
    out.rnr_retry = std::min<uint8_t>(p->rnr_retry_count, 7);
  } else {
    out.initiator_depth = out.responder_resources = kMostReads;
  }
  return out;
}

// Of a connect that came to nothing: the socket's, or there was somebody, with another protocol.
int ErrorOf(const absl::Status& status) {
  const int error = io::ErrnoOf(status);
  return error != 0 ? error : EPROTO;
}

provider::Address Parsed(const std::string& text) {
  const absl::StatusOr<provider::HostPort> where = provider::ParseHostPort(text);
  if (!where.ok()) return {};
  return provider::Address::FromIp(where->host, where->port).value_or(provider::Address());
}

}  // namespace

void ConnectionId::Attach(QueuePair* mine) {
  managed_ = mine;
  std::lock_guard lock(mine->manager_mutex());
  mine->SetManager(this);
}

void ConnectionId::Detach() {
  if (managed_ == nullptr) return;
  std::lock_guard lock(managed_->manager_mutex());
  managed_->SetManager(nullptr);
  managed_ = nullptr;
}

QueuePair* ConnectionId::FindQueuePair(const rdma_conn_param* p) {
  if (qp != nullptr) return QueuePair::Of(qp);
  Process* const process = Process::Get();
  return process == nullptr || p == nullptr ? nullptr : process->Find(p->qp_num);
}

// [::] is for IPv4 as well (ipv6(7)), unless the program wants one family: then it stands for the
// addresses of the devices, of which there may be none.
std::vector<provider::Address> ConnectionId::WhereToListen() const {
  const provider::Address local = provider::Address::From(&route.addr.src_addr);
  if (route.addr.src_addr.sa_family == AF_UNSPEC) {
    return {provider::Address::FromIp("0.0.0.0", 0).value_or(local)};
  }
  if (!one_family_ || local.family() != AF_INET6 || !local.is_any()) return {local};
  std::vector<provider::Address> all;
  for (const Device* each : Device::All()) {
    if (each->address().family() != AF_INET6) continue;
    all.push_back(each->address());
    all.back().set_port(local.port());
  }
  return all;
}

int ConnectionId::Listen(int backlog) {
  if (!listeners_.empty()) return EINVAL;
  Process* const process = Process::Get();
  if (process == nullptr) return errno;
  if (Device::All().empty()) return ENODEV;
  ListenOptions options;
  if (backlog > 0) options.backlog = backlog;
  options.rdma = Rdma::kOff;
  const auto open = [&](const provider::Address& at, int* error) {
    auto listener = process->context().Listen(at.ToString(), options);
    if (listener.ok()) return *std::move(listener);
    VERBENA_LOG(kInfo, "dropin", std::string(listener.status().message()));
    *error = absl::IsUnavailable(listener.status()) || absl::IsAlreadyExists(listener.status()) ||
                     absl::IsFailedPrecondition(listener.status())
                 ? EADDRINUSE
                 : ErrnoOf(listener.status());
    return std::unique_ptr<provider::Listener>();
  };
  const std::vector<provider::Address> where = WhereToListen();
  provider::Address local =
      where.size() == 1 ? where.front() : provider::Address::From(&route.addr.src_addr);
  std::vector<std::unique_ptr<provider::Listener>> listeners;
  int error = 0;
  for (provider::Address at : where) {
    at.set_port(local.port());
    listeners.push_back(open(at, &error));
    if (error != 0) break;
    local.set_port(Parsed(listeners.back()->address()).port());
  }
  if (where.empty() && local.port() == 0) {  // the port of a listener that nobody can reach
    if (auto any = open(Device::All().front()->address(), &error); any != nullptr) {
      local.set_port(Parsed(any->address()).port());
      (void)any->Close();
    }
  }
  if (error != 0) {
    for (auto& each : listeners) {
      if (each != nullptr) (void)each->Close();
    }
    return error;
  }
  SetAddresses(local, {});
  // What requests will be of is opened here: the service, with the mutex, only looks it up.
  for (Device* each : Device::All()) {
    Context* const opened = ManagerContext(each);
    if (opened == nullptr || ManagerDomain(opened) == nullptr) return errno;
  }
  {
    std::lock_guard lock(ManagerMutex());
    listeners_ = std::move(listeners);
    ManagerState::Get().listeners.insert(this);
  }
  process->Changed();
  return 0;
}

void ConnectionManager::OnTimer() {
  std::vector<uint32_t> again;
  {
    std::lock_guard lock(ManagerMutex());
    for (ConnectionId* each : ManagerState::Get().listeners) each->TakeRequests();
    again.swap(ManagerState::Get().refused);
  }
  Process* const process = again.empty() ? nullptr : Process::Get();
  for (const uint32_t number : again) {
    process->With(number, [](QueuePair& qp) {
      std::lock_guard lock(qp.manager_mutex());
      if (qp.manager() != nullptr) qp.manager()->TryAgain();
    });
  }
}

// Closed without the mutex: it waits for what the service does with it just now.
void ConnectionId::StopListening() {
  std::vector<std::unique_ptr<provider::Listener>> listeners;
  {
    std::lock_guard lock(ManagerMutex());
    listeners.swap(listeners_);
    ManagerState::Get().listeners.erase(this);
  }
  for (auto& each : listeners) (void)each->Close();
}

void ConnectionId::TakeRequests() {
  for (auto& each : listeners_) TakeRequests(each.get());
}

void ConnectionId::TakeRequests(provider::Listener* listener) {
  while (std::unique_ptr<provider::ConnectionRequest> request = listener->TryNext()) {
    const provider::Address local = Parsed(request->info().local);
    Device* const device = Device::At(local.bytes());
    Context* const opened = device == nullptr ? nullptr : ManagerContext(device);
    if (opened == nullptr) {
      (void)request->Close();
      continue;
    }
    auto* const id = new ConnectionId(process_, channel, context, ps);
    id->verbs = &opened->context;
    id->port_num = 1;
    id->pd = ManagerDomain(opened);
    id->SetAddresses(local, Parsed(request->info().peer));
    auto* const e = new CmEvent(id, RDMA_CM_EVENT_CONNECT_REQUEST, 0);
    e->listen_id = this;
    e->param.conn.responder_resources = e->param.conn.initiator_depth = kMostReads;
    e->param.conn.retry_count = e->param.conn.rnr_retry_count = 7;
    e->SetPrivateData(request->private_data());
    id->request_ = std::move(request);
    EventChannel::Of(channel)->events.Push(e);
  }
}

int ConnectionId::Connect(const rdma_conn_param* p) {
  QueuePair* const mine = FindQueuePair(p);
  if (mine == nullptr || route.addr.dst_addr.sa_family == AF_UNSPEC) return EINVAL;
  auto parameters = ParametersOf<ConnectParameters>(p);
  if (p != nullptr) parameters.retry_count = std::min<uint8_t>(p->retry_count, 7);
  parameters.timeout = timeout_;
  parameters.traffic_class = traffic_class_;
  parameters.deadline = absl::Seconds(30);
  agreed_ = p != nullptr ? *p : rdma_conn_param{};
  agreed_.responder_resources = static_cast<uint8_t>(parameters.responder_resources);
  agreed_.initiator_depth = static_cast<uint8_t>(parameters.initiator_depth);
  parameters_ = parameters;
  patient_until_ = absl::Now() + kPatience;
  calls_ = true;
  waits_to_try_ = given_up_ = false;
  Attach(mine);
  if (StartConnect().ok()) return 0;
  Detach();
  return EINVAL;
}

absl::Status ConnectionId::StartConnect() {
  const provider::Address peer = provider::Address::From(&route.addr.dst_addr);
  ConnectionInfo info;
  info.peer = peer.ToString();
  const absl::Status s = managed_->queue_pair().StartConnect({peer}, parameters_, {}, info);
  if (!s.ok()) VERBENA_LOG(kInfo, "dropin", std::string(s.message()));
  return s;
}

void ConnectionId::TryAgain() {
  if (!std::exchange(waits_to_try_, false)) return;  // the program has disconnected
  if (!StartConnect().ok()) Push(RDMA_CM_EVENT_CONNECT_ERROR, -EINVAL);
}

int ConnectionId::Accept(const rdma_conn_param* p) {
  QueuePair* const mine = FindQueuePair(p);
  if (request_ == nullptr || mine == nullptr) return EINVAL;
  auto parameters = ParametersOf<AcceptParameters>(p);
  parameters.timeout = timeout_;
  parameters.traffic_class = traffic_class_;
  agreed_ = p != nullptr ? *p : rdma_conn_param{};
  agreed_.responder_resources = static_cast<uint8_t>(parameters.responder_resources);
  agreed_.initiator_depth = static_cast<uint8_t>(parameters.initiator_depth);
  Attach(mine);
  const absl::Status s = request_->Accept(mine->queue_pair(), parameters);
  if (!s.ok()) {
    Detach();
    VERBENA_LOG(kInfo, "dropin", std::string(s.message()));
    return absl::IsUnavailable(s) ? ECONNRESET : EINVAL;
  }
  mine->Connected();
  request_.reset();
  return 0;
}

int ConnectionId::Reject(const void* data, uint8_t length) {
  if (request_ == nullptr) return EINVAL;
  const absl::Status s =
      request_->Reject(data == nullptr ? "" : std::string(static_cast<const char*>(data), length));
  if (!s.ok()) return EINVAL;
  request_.reset();
  return 0;
}

int ConnectionId::Disconnect() {
  if (managed_ == nullptr) return EINVAL;
  {
    std::lock_guard lock(managed_->manager_mutex());
    // Who waits needs an event to come, or to be there.
    if (waits() && !established_ && EventChannel::Of(channel)->events.empty()) return EINVAL;
    given_up_ = true;
    if (std::exchange(waits_to_try_, false)) Push(RDMA_CM_EVENT_UNREACHABLE, -ECANCELED);
  }
  (void)managed_->queue_pair().Disconnect();  // the peer may have been first
  return 0;
}

void ConnectionManager::Forget(ConnectionId* id) { id->ForgetQueuePair(); }
void ConnectionManager::Tell(ConnectionId* id, const Event& event) { id->OnEvent(event); }

void ConnectionId::OnEvent(const Event& event) {
  switch (event.type) {
    case EventType::kEstablished:
      established_ = true;
      // A program that moves the queue pair itself does so now (rdma_establish(3)).
      if (calls_ && qp == nullptr) {
        return Push(RDMA_CM_EVENT_CONNECT_RESPONSE, 0, event.private_data);
      }
      managed_->Connected();
      return Push(RDMA_CM_EVENT_ESTABLISHED, 0, event.private_data);
    case EventType::kRejected:
      return Push(RDMA_CM_EVENT_REJECTED, kConsumerReject, event.private_data);
    case EventType::kUnreachable: {
      if (given_up_) return Push(RDMA_CM_EVENT_UNREACHABLE, -ECANCELED);
      const int error = absl::IsDeadlineExceeded(event.status) ? ETIMEDOUT : ErrorOf(event.status);
      // Nobody listens yet, or the backlog has no room.
      const bool busy = error == ECONNREFUSED || error == ECONNRESET;
      if (busy && absl::Now() < patient_until_) {
        waits_to_try_ = true;
        std::lock_guard lock(ManagerMutex());
        ManagerState::Get().refused.push_back(managed_->number());
        return managed_->process().context().SetTimer(kBetweenTries);
      }
      if (error == ECONNREFUSED) return Push(RDMA_CM_EVENT_REJECTED, kNoListener);
      return Push(RDMA_CM_EVENT_UNREACHABLE, -error);
    }
    case EventType::kDisconnected:
      if (std::exchange(established_, false)) return Push(RDMA_CM_EVENT_DISCONNECTED, 0);
      return Push(RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET);
    default:
      return;
  }
}

}  // namespace verbena::dropin
