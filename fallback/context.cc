// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "fallback/datagram_queue_pair.h"
#include "fallback/device.h"
#include "fallback/io/kernel_world.h"
#include "fallback/listener.h"
#include "fallback/pcap/capture.h"
#include "fallback/provider.h"
#include "fallback/queue_pair.h"
#include "transport/datagram_checks.h"

namespace verbena::fallback {

namespace {

class Path final : public provider::Path {
 public:
  Path(Device* device, std::vector<io::Address> to) : device_(device), to_(std::move(to)) {
    device_->children().Add();
    info_.peer = to_.front().ToString();
    info_.candidates.push_back({device->info().name, true, "no RDMA device is in use"});
  }
  ~Path() override { device_->children().Remove(); }

  absl::Status Close() override { return absl::OkStatus(); }
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  void Announce(const provider::Selection& selection) override {
    selection_ = selection;
    info_.candidates = selection.candidates;
  }
  absl::Status Connect(provider::QueuePair& qp, const ConnectParameters& parameters) override {
    if (dynamic_cast<DatagramQueuePair*>(&qp) != nullptr) {
      return provider::HasNoPeer("connect");
    }
    auto* mine = dynamic_cast<QueuePair*>(&qp);
    if (mine == nullptr || mine->device() != device_) {
      return provider::OtherDevice(absl::StrCat("connect ", info_.peer), "path");
    }
    return mine->StartConnect(to_, parameters, selection_, info_);
  }

 private:
  Device* const device_;
  const std::vector<io::Address> to_;
  ConnectionInfo info_;
  provider::Selection selection_;
};

class Context final : public provider::Context {
 public:
  Context(std::unique_ptr<io::World> world, io::Address from, const DeviceInfo& info,
          const engine::Hardships& hardships)
      : world_(std::move(world)), device_(this, world_.get(), from, info, hardships) {
    world_->Start(&device_.hub());
  }
  ~Context() override { Stop(); }

  absl::Status Close() override {
    if (absl::Status s = CheckClosable(); !s.ok()) return s;
    device_.meeting().Close();
    // Last words of closed connections are still on their way, for a second at most.
    Hub& hub = device_.hub();
    world_->Await([&] { return !hub.lingering(); }, hub.Now() + kLastWords);
    Stop();
    return absl::OkStatus();
  }
  std::vector<provider::Device*> devices() const override {
    return {const_cast<Device*>(&device_)};
  }
  absl::StatusOr<std::unique_ptr<provider::Listener>> Listen(
      const std::string& address, const ListenOptions& options) override {
    return Listener::Create(&device_, address, options);
  }
  absl::StatusOr<std::unique_ptr<provider::Path>> Resolve(const std::string& address,
                                                          const ResolveOptions&) override {
    absl::StatusOr<provider::HostPort> where = provider::ParseHostPort(address);
    if (!where.ok()) return where.status();
    absl::StatusOr<std::vector<io::Address>> to = provider::Lookup(*where, false);
    if (!to.ok()) return to.status();
    return std::make_unique<Path>(&device_, *std::move(to));
  }
  void SetHost(provider::Host* host) override { device_.SetHost(host); }
  Contact contact() const override { return {.ways = {{.device = device_.info().name}}}; }
  bool Await(absl::FunctionRef<bool()> ready, absl::Duration timeout) override {
    return world_->Await(ready, device_.hub().In(timeout));
  }
  void Wake() override { world_->Changed(); }
  absl::Status CheckClosable() const override { return device_.children().CheckNone("context"); }
  absl::Duration Now() const override { return absl::Nanoseconds(device_.hub().Now()); }
  void SetTimer(absl::Duration after) override {
    device_.SetTimer(device_.hub().Now() + absl::ToInt64Nanoseconds(after));
  }

 private:
  static constexpr Nanos kLastWords = 1'500'000'000;

  void Stop() {
    device_.meeting().Close();
    if (!stopped_) world_->Stop(&device_.hub());
    stopped_ = true;
  }

  std::unique_ptr<io::World> world_;
  Device device_;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<provider::Context>> OpenOn(std::unique_ptr<io::World> world,
                                                          const std::string& argument,
                                                          const DeviceInfo& info) {
  io::Address from;
  if (!argument.empty()) {
    absl::StatusOr<std::vector<io::Address>> found = provider::Lookup({argument, 0}, true);
    if (!found.ok()) return found.status();
    from = found->front();
  }
  const char* harsh = std::getenv("VERBENA_HARSH");
  absl::StatusOr<engine::Hardships> hardships = engine::ParseHardships(harsh ? harsh : "");
  if (!hardships.ok()) return hardships.status();
  if (pcap::Capture* const capture = pcap::Capture::OfProcess()) {
    world = pcap::Captured(std::move(world), capture);
  }
  return std::make_unique<Context>(std::move(world), from, info, *hardships);
}

absl::StatusOr<std::unique_ptr<provider::Context>> Open(const std::string& argument) {
  absl::StatusOr<std::unique_ptr<io::World>> world = io::NewKernelWorld();
  if (!world.ok()) return world.status();
  return OpenOn(*std::move(world), argument, Device::Info());
}

std::vector<DeviceInfo> ListDevices() { return {Device::Info()}; }

}  // namespace verbena::fallback
