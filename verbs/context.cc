// SPDX-License-Identifier: Apache-2.0
// The context of the provider: its devices, and how addresses become ways to peers.
#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "verbs/device.h"
#include "verbs/inventory.h"
#include "verbs/listener.h"
#include "verbs/provider.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

class Path final : public provider::Path {
 public:
  Path(Device* device, Address to, std::string local) : device_(device), to_(to) {
    device_->children().Add();
    info_.local = std::move(local);
    info_.peer = to_.ToString();
    info_.candidates.push_back(
        {device_->name(), true, absl::StrCat("the kernel's route to ", to_.ip(), " is over it")});
  }
  ~Path() override { device_->children().Remove(); }

  absl::Status Close() override { return absl::OkStatus(); }
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  void Announce(const provider::Selection& selection) override {
    info_.candidates = selection.candidates;
  }
  absl::Status Connect(provider::QueuePair& qp, const ConnectParameters& parameters) override {
    auto* mine = dynamic_cast<QueuePair*>(&qp);
    if (mine == nullptr || mine->device() != device_) {
      return provider::OtherDevice(absl::StrCat("connect ", info_.peer), "path");
    }
    return mine->StartConnect(to_, parameters, info_);
  }

 private:
  Device* const device_;
  const Address to_;
  ConnectionInfo info_;
};

// One question to librdmacm that is waited for: an event channel and identifier of its own.
class Asked {
 public:
  Asked() : channel_(Lib().create_event_channel()) {
    if (channel_ != nullptr) (void)Lib().create_id(channel_, &id_, nullptr, RDMA_PS_TCP);
  }
  ~Asked() {
    if (id_ != nullptr) Lib().destroy_id(id_);
    if (channel_ != nullptr) Lib().destroy_event_channel(channel_);
  }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;

  // 0, or an errno.
  int Resolve(Address to, absl::Duration deadline) {
    if (id_ == nullptr) return errno;
    const int ms =
        static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(deadline), 1 << 30));
    if (Lib().resolve_addr(id_, nullptr, to.raw(), std::max(ms, 1)) != 0) return errno;
    rdma_cm_event* event = nullptr;
    while (Lib().get_cm_event(channel_, &event) != 0) {  // comes by the timeout above
      if (errno != EINTR) return errno;
    }
    const int status = event->event == RDMA_CM_EVENT_ADDR_RESOLVED ? 0
                       : event->status < 0                         ? -event->status
                                                                   : EHOSTUNREACH;
    Lib().ack_cm_event(event);
    return status != 0 || id_->verbs != nullptr ? status : ENODEV;
  }
  const char* device() const { return id_->verbs->device->name; }
  std::string local() const { return Address::From(&id_->route.addr.src_addr).ip(); }

 private:
  rdma_event_channel* const channel_;
  rdma_cm_id* id_ = nullptr;
};

class Context final : public provider::Context {
 public:
  Context(std::unique_ptr<Service> service, std::vector<Found> found)
      : service_(std::move(service)) {
    for (Found& each : found) {
      devices_.push_back(std::make_unique<Device>(this, service_.get(), std::move(each)));
    }
  }
  ~Context() override { service_->Stop(); }

  absl::Status Start() { return service_->Start(); }

  absl::Status Close() override {
    if (absl::Status s = CheckClosable(); !s.ok()) return s;
    service_->Stop();
    return absl::OkStatus();
  }
  absl::Status CheckClosable() const override {
    if (absl::Status s = children_.CheckNone("context"); !s.ok()) return s;
    for (const auto& device : devices_) {
      if (absl::Status s = device->children().CheckNone("context"); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  std::vector<provider::Device*> devices() const override {
    std::vector<provider::Device*> out;
    for (const auto& device : devices_) out.push_back(device.get());
    return out;
  }
  absl::StatusOr<std::unique_ptr<provider::Listener>> Listen(
      const std::string& address, const ListenOptions& options) override {
    return Listener::Create(
        service_.get(), &children_, [this](const char* name) { return Find(name); }, address,
        options);
  }
  absl::StatusOr<std::unique_ptr<provider::Path>> Resolve(const std::string& address,
                                                          const ResolveOptions& options) override {
    absl::StatusOr<provider::HostPort> where = provider::ParseHostPort(address);
    if (!where.ok()) return where.status();
    absl::StatusOr<std::vector<Address>> to = provider::Lookup(*where, false);
    if (!to.ok()) return to.status();
    std::string reasons;
    for (const Address& each : *to) {
      Asked asked;
      const int error = asked.Resolve(each, options.deadline);
      Device* device = error == 0 ? Find(asked.device()) : nullptr;
      if (device != nullptr) return std::make_unique<Path>(device, each, asked.local());
      absl::StrAppend(&reasons, reasons.empty() ? "" : "; ", each.ToString(), ": ",
                      error != 0
                          ? absl::StrCat("no RDMA device leads there (", std::strerror(error), ")")
                          : absl::StrCat("the way is over device ", asked.device(),
                                         ", which this context does not use"));
    }
    return absl::UnavailableError(absl::StrCat(
        "resolve ", address, ": ", reasons,
        ". Is the address one of the peer's RDMA network, and the port active? TCP may reach it."));
  }
  Contact contact() const override {
    Contact contact{.rdma = Rdma::kRequired};
    for (const auto& device : devices_) {
      absl::StatusOr<Way> way = device->way();
      if (way.ok()) {
        contact.ways.push_back(*std::move(way));
      } else {
        contact.absent.push_back({device->name(), false, std::string(way.status().message())});
      }
    }
    return contact;
  }
  void SetHost(provider::Host* host) override {
    for (const auto& device : devices_) device->SetHost(host);
  }
  void Wake() override { service_->Changed(); }
  bool Await(absl::FunctionRef<bool()> ready, absl::Duration timeout) override {
    return service_->Await(ready, timeout);
  }

 private:
  Device* Find(const char* name) const {
    for (const auto& device : devices_) {
      if (device->name() == name) return device.get();
    }
    return nullptr;
  }

  std::unique_ptr<Service> service_;
  std::vector<std::unique_ptr<Device>> devices_;
  Children children_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<provider::Context>> Open(const std::string& argument,
                                                        std::vector<Candidate>* passed_over) {
  absl::StatusOr<std::vector<Found>> found = FindDevices([&](const DeviceInfo& info) {
    return argument.empty() ? passed_over == nullptr || !info.software : info.name == argument;
  });
  if (!found.ok()) {
    return argument.empty()
               ? found.status()
               : absl::Status(found.status().code(), absl::StrCat("device verbs:", argument, ": ",
                                                                  found.status().message()));
  }
  std::vector<Found> wanted;
  std::string reasons;
  bool known = false;
  for (Found& device : *found) {
    if (!argument.empty() && device.info.name != argument) continue;
    known = true;
    SettleAddresses(device, !argument.empty() || passed_over == nullptr);
    if (device.context == nullptr && device.info.reason.empty()) {
      device.info.reason = "a software device; it is chosen only if named";
    }
    if (device.info.usable) {
      wanted.push_back(std::move(device));
    } else {
      absl::StrAppend(&reasons, reasons.empty() ? "" : "; ", device.info.name, ": ",
                      device.info.reason);
      if (passed_over != nullptr) {
        passed_over->push_back({device.info.name, false, device.info.reason});
      }
    }
  }
  if (wanted.empty()) {
    if (known) {
      return absl::NotFoundError(argument.empty()
                                     ? absl::StrCat("device verbs: none is usable: ", reasons)
                                     : absl::StrCat("device verbs:", reasons));
    }
    std::string names;
    for (const Found& device : *found) {
      absl::StrAppend(&names, names.empty() ? "" : ", ", device.info.name);
    }
    return absl::NotFoundError(absl::StrCat("device verbs:", argument,
                                            ": there is no such device. Use one of this machine (",
                                            names, "), or auto."));
  }
  absl::StatusOr<std::unique_ptr<Service>> service = Service::Create();
  if (!service.ok()) return service.status();
  auto context = std::make_unique<Context>(*std::move(service), std::move(wanted));
  if (absl::Status s = context->Start(); !s.ok()) return s;
  return context;
}

}  // namespace verbena::verbs
