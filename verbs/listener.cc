// SPDX-License-Identifier: Apache-2.0
#include "verbs/listener.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transport/log.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {

absl::StatusOr<std::unique_ptr<provider::Listener>> Listener::Create(Service* service,
                                                                     Children* context,
                                                                     FindDevice find,
                                                                     const std::string& address,
                                                                     const ListenOptions& options) {
  absl::StatusOr<provider::HostPort> where = provider::ParseHostPort(address);
  if (!where.ok()) return where.status();
  absl::StatusOr<std::vector<Address>> addresses = provider::Lookup(*where, true);
  if (!addresses.ok()) return addresses.status();
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    return provider::NoDescriptor(absl::StrCat("listen ", address), errno);
  }
  auto listener = std::make_unique<Listener>(service, context, std::move(find), options, fd);
  absl::Status last = absl::NotFoundError(absl::StrCat("listen ", address, ": no address"));
  for (const Address& a : *addresses) {
    last = listener->Bind(a);
    if (last.ok()) return listener;
  }
  return last;
}

Listener::Listener(Service* service, Children* context, FindDevice find,
                   const ListenOptions& options, int fd)
    : service_(service), context_(context), find_(std::move(find)), options_(options), fd_(fd) {
  context_->Add();
}

int Listener::Listen(Address address) {
  CmHandler* const handler = this;
  rdma_cm_id* id = nullptr;
  if (Lib().create_id(service_->channel(), &id, handler, RDMA_PS_TCP) != 0) return errno;
  int only = 1;
  const bool v6 = address.family() == AF_INET6;
  if ((!v6 ||
       Lib().set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &only, sizeof only) == 0) &&
      Lib().bind_addr(id, address.raw()) == 0 && Lib().listen(id, options_.backlog) == 0) {
    ids_.push_back(id);
    return 0;
  }
  const int error = errno;
  Lib().destroy_id(id);
  return error;
}

// [::] is for IPv4 as well (ipv6(7)), by a listener of its own: on an iWARP device a common one
// hears of such a caller under an IPv4-mapped address, and rdma_cm finds no device for that
// (Linux 6.1 addr.c rdma_translate_ip).
absl::Status Listener::Bind(const Address& address) {
  const std::lock_guard lock(service_->mutex());
  const bool both = address.is_any() && address.family() == AF_INET6;
  int error = 0;
  // A free port of one family may be taken in the other.
  for (int tries = address.port() == 0 && both ? 16 : 1; tries > 0; --tries) {
    error = Listen(address);
    if (error != 0) break;
    const Address bound = Address::From(&ids_.front()->route.addr.src_addr);
    if (both) error = Listen(*Address::FromIp("0.0.0.0", bound.port()));
    if (error == 0) {
      address_ = bound.ToString();
      return absl::OkStatus();
    }
    StopListening();
    if (error != EADDRINUSE) break;
  }
  const std::string what = absl::StrCat("listen ", address.ToString());
  switch (error) {
    case EADDRINUSE:
      return absl::UnavailableError(absl::StrCat(
          what, ": the port is in use on an RDMA device. Stop who has it, or take another."));
    case EADDRNOTAVAIL:
    case ENODEV:
      return absl::UnavailableError(absl::StrCat(
          what, ": it is not an address of an RDMA device here. `verbena devices` shows them."));
    case EACCES:
      return absl::PermissionDeniedError(
          absl::StrCat(what, ": ports below 1024 need CAP_NET_BIND_SERVICE. Take a higher one."));
    default:
      return ErrnoStatus(error, what, "Is the device's port active?");
  }
}

absl::Status Listener::Close() {
  const std::lock_guard lock(service_->mutex());
  for (auto& request : std::exchange(requests_, {})) request->Refuse("");
  StopListening();
  return absl::OkStatus();
}

void Listener::StopListening() {
  for (rdma_cm_id* id : std::exchange(ids_, {})) Lib().destroy_id(id);
}

Listener::~Listener() {
  close(fd_);
  context_->Remove();
}

ListenerCounters Listener::counters() const {
  const std::lock_guard lock(service_->mutex());
  return counters_;
}

std::unique_ptr<provider::ConnectionRequest> Listener::TryNext() {
  const std::lock_guard lock(service_->mutex());
  if (requests_.empty()) return nullptr;
  std::unique_ptr<ConnectionRequest> request = std::move(requests_.front());
  requests_.pop_front();
  eventfd_t count;
  if (requests_.empty()) (void)eventfd_read(fd_, &count);
  return request;
}

void Listener::OnCm(const CmEvent& event) {
  if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
    VERBENA_LOG(kWarn, "connect", "listen ", address_,
                ": its device is being removed; it hears no more callers");
    StopListening();  // the kernel waits for it
    return;
  }
  if (event.type != RDMA_CM_EVENT_CONNECT_REQUEST) return;
  const char* name = event.id->verbs != nullptr ? event.id->verbs->device->name : "";
  Device* device = find_(name);
  ConnectionInfo info;
  info.local = Address::From(&event.id->route.addr.src_addr).ToString();
  info.peer = Address::From(&event.id->route.addr.dst_addr).ToString();
  if (device == nullptr || device->gone() ||
      requests_.size() >= static_cast<size_t>(options_.backlog)) {
    ++counters_.refused;
    // A stranger can cause any number of these.
    VERBENA_LOG(
        kInfo, "connect", "listen ", address_, ": refused ", info.peer, ": ",
        device == nullptr || device->gone()
            ? absl::StrCat("it came over device ", name, ", which this context does not use")
            : "too many callers wait for an answer");
    Lib().reject(event.id, nullptr, 0);
    Lib().destroy_id(event.id);
    return;
  }
  info.candidates.push_back({device->name(), true, "the caller came over this device"});
  VERBENA_LOG(kInfo, "connect", "listen ", info.local, ": request from ", info.peer, " over ",
              device->name());
  requests_.push_back(
      std::make_unique<ConnectionRequest>(device, event.id, event, std::move(info)));
  ++counters_.requests;
  (void)eventfd_write(fd_, 1);
  device->Changed();
}

ConnectionRequest::ConnectionRequest(Device* device, rdma_cm_id* id, CmEvent event,
                                     ConnectionInfo info)
    : device_(device), id_(id), offer_(std::move(event)), info_(std::move(info)) {
  CmHandler* const handler = this;
  id_->context = handler;
  device_->children().Add();
  device_->Join(this);
}

ConnectionRequest::~ConnectionRequest() { device_->children().Remove(); }

void ConnectionRequest::DeviceGone() {
  left_ = true;
  if (id_ != nullptr) Lib().destroy_id(id_);
  Answered();
}

void ConnectionRequest::Answered() {
  id_ = nullptr;
  device_->Leave(this);
}

void ConnectionRequest::OnCm(const CmEvent& event) {
  switch (event.type) {
    case RDMA_CM_EVENT_REJECTED:
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_CONNECT_ERROR:
      left_ = true;
      return;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      return device_->Gone();
    default:
      return;
  }
}

absl::Status ConnectionRequest::CheckOpen(const char* what) const {
  if (id_ != nullptr || left_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what, " ", info_.peer, ": the request was answered already"));
}

void ConnectionRequest::Refuse(const std::string& private_data) {
  if (id_ == nullptr) return;
  Lib().reject(id_, private_data.data(), static_cast<uint8_t>(private_data.size()));
  Lib().destroy_id(id_);
  Answered();
}

absl::Status ConnectionRequest::Close() {
  const std::lock_guard lock(device_->service().mutex());
  if (id_ != nullptr) device_->counts().rejects.fetch_add(1);
  Refuse("");
  return absl::OkStatus();
}

absl::Status ConnectionRequest::Accept(provider::QueuePair& qp,
                                       const AcceptParameters& parameters) {
  const std::lock_guard lock(device_->service().mutex());
  if (absl::Status s = CheckOpen("accept"); !s.ok()) return s;
  auto* mine = dynamic_cast<QueuePair*>(&qp);
  if (mine == nullptr || mine->device() != device_) {
    return provider::OtherDevice(absl::StrCat("accept ", info_.peer), "request");
  }
  const DeviceAttributes limits = device_->attributes();
  if (absl::Status s = provider::CheckPrivateData("accept", parameters.private_data,
                                                  limits.private_data_accept, device_->name());
      !s.ok()) {
    return s;
  }
  if (left_) {
    Refuse("");
    return absl::UnavailableError(absl::StrCat("accept ", info_.peer, ": the peer has left"));
  }
  if (absl::Status s = mine->CheckOffer(offer_, parameters.require); !s.ok()) {
    device_->counts().rejects.fetch_add(1);
    Refuse(std::string(s.message()).substr(0, limits.private_data_reject));
    return s;
  }
  absl::Status s = mine->Accept(id_, offer_, parameters, info_);
  if (s.ok()) Answered();
  if (absl::IsUnavailable(s)) Refuse("");
  return s;
}

absl::Status ConnectionRequest::Reject(const std::string& private_data) {
  const std::lock_guard lock(device_->service().mutex());
  if (absl::Status s = CheckOpen("reject"); !s.ok()) return s;
  if (absl::Status s = provider::CheckPrivateData(
          "reject", private_data, device_->attributes().private_data_reject, device_->name());
      !s.ok()) {
    return s;
  }
  device_->counts().rejects.fetch_add(1);
  Refuse(private_data);
  return absl::OkStatus();
}

}  // namespace verbena::verbs
