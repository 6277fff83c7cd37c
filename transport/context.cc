// SPDX-License-Identifier: Apache-2.0
#include "transport/context.h"

#include <sys/resource.h>

#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "connect/compose.h"
#include "transport/context_state.h"
#include "transport/log.h"
#include "transport/out_of_band.h"
#include "transport/providers.h"

namespace verbena {
namespace {

// A device name, and where it was given, for error texts.
struct Choice {
  std::string device;
  const char* from;
};

Choice ChooseName(const ContextOptions& options) {
  if (!options.device.empty()) return {options.device, "ContextOptions::device"};
  const char* text = std::getenv("VERBENA_DEVICE");
  if (text != nullptr && *text != '\0') return {text, "VERBENA_DEVICE"};
  return {"auto", "the default"};
}

absl::StatusOr<Rdma> ChooseRdma(const ContextOptions& options) {
  if (options.rdma.has_value()) return *options.rdma;
  const char* text = std::getenv("VERBENA_RDMA");
  if (text == nullptr || *text == '\0') return Rdma::kAuto;
  for (Rdma each : {Rdma::kOff, Rdma::kAuto, Rdma::kRequired}) {
    if (text == std::string(RdmaName(each))) return each;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("VERBENA_RDMA is `", text, "`. Use off, auto or required."));
}

std::string UsableDevices() {
  std::vector<std::string> names;
  for (const DeviceInfo& device : Context::ListDevices()) {
    if (device.usable) names.push_back(device.name);
  }
  return names.empty() ? "none" : absl::StrJoin(names, ", ");
}

absl::Status Malformed(const Choice& choice, const char* fact) {
  return absl::InvalidArgumentError(absl::StrCat(
      "device `", choice.device, "` (", choice.from, "): ", fact,
      ". Use auto, tcp, tcp:ADDRESS or verbs:NAME; usable here: ", UsableDevices(), "."));
}

absl::Status OutOfDescriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return absl::ResourceExhaustedError(absl::StrCat(
      "context: no descriptor is left for the event queue (the limit is ", limit.rlim_cur,
      "). Close some, or raise it: `ulimit -n 65536`, "
      "LimitNOFILE= in systemd, `--ulimit nofile=65536` for a container."));
}

}  // namespace

absl::StatusOr<Context> Context::Open(const ContextOptions& options) {
  const Choice choice = ChooseName(options);
  const absl::StatusOr<Rdma> rdma = ChooseRdma(options);
  if (!rdma.ok()) return rdma.status();
  const size_t colon = choice.device.find(':');
  const std::string name = choice.device.substr(0, colon);
  const std::string argument = colon == std::string::npos ? "" : choice.device.substr(colon + 1);
  if (colon != std::string::npos && argument.empty()) {
    return Malformed(choice, "nothing stands behind the colon");
  }
  if (name == "auto" && !argument.empty()) return Malformed(choice, "auto takes no argument");
  for (const ProviderEntry& entry : AllProviders()) {
    if (name == "auto" || name == entry.name) return OpenSome(name, argument, *rdma);
  }
  if (name == "verbs") {
    return absl::NotFoundError(
        absl::StrCat("device `", choice.device, "` (", choice.from,
                     "): there is no such device; usable here: ", UsableDevices(), "."));
  }
  return Malformed(choice, "not the name of a device");
}

absl::StatusOr<Context> Context::OpenSome(const std::string& name, const std::string& argument,
                                          Rdma rdma) {
  const std::span<const ProviderEntry> all = AllProviders();
  const ProviderEntry& base = all.front();
  const bool named = name != "auto";
  connect::Settings settings{.rdma = rdma};
  std::vector<std::unique_ptr<provider::Context>> others;
  for (const ProviderEntry& entry : all.subspan(1)) {
    if (named && name != entry.name) continue;
    if (rdma == Rdma::kOff) {
      settings.absent.push_back({entry.name, false, "RDMA is off at this end"});
      continue;
    }
    const size_t known = settings.absent.size();
    auto opened = entry.open(argument, named ? nullptr : &settings.absent);
    if (opened.ok()) {
      others.push_back(*std::move(opened));
      continue;
    }
    if (named && rdma == Rdma::kRequired) return opened.status();
    const std::string why(absl::StripPrefix(opened.status().message(),
                                            absl::StrCat("device ", name, ":", argument, ": ")));
    if (named) {  // which device is one choice, whether another: docs/decisions/0013
      VERBENA_LOG(kWarn, "select", opened.status().message(),
                  " Going on over TCP, as RDMA is not required.");
    }
    if (settings.absent.size() == known) {
      settings.absent.push_back({argument.empty() ? entry.name : argument, false, why});
    }
  }
  auto opened = base.open(name == base.name ? argument : "", nullptr);
  if (!opened.ok()) return opened.status();
  return OpenOn(connect::Compose(*std::move(opened), std::move(others), settings));
}

absl::StatusOr<Context> Context::OpenOn(std::unique_ptr<provider::Context> provider) {
  auto state = std::make_unique<ContextState>(std::move(provider));
  state->provider->SetHost(&state->events);
  for (provider::Device* device : state->provider->devices()) {
    state->devices.push_back(std::make_unique<Device>(device, device->owner()));
  }
  Context context(std::move(state));
  if (context.events().fd() < 0) return OutOfDescriptors();
  return context;
}

Context::Context(std::unique_ptr<ContextState> state) : state_(std::move(state)) {}

Context::Context(Context&&) noexcept = default;

Context& Context::operator=(Context&& other) noexcept {
  if (this != &other) {
    Context former(std::move(*this));  // closes it on the way out
    state_ = std::move(other.state_);
  }
  return *this;
}

Context::~Context() {
  if (absl::Status status = Close(); !status.ok()) {
    ReportUnclosable(status);
    (void)state_.release();  // its children go on living on it
  }
}

absl::Status Context::Close() {
  if (state_ == nullptr) return absl::OkStatus();
  absl::Status status = state_->provider->Close();
  if (status.ok()) state_.reset();
  return status;
}

std::vector<DeviceInfo> Context::ListDevices() {
  std::vector<DeviceInfo> all;
  for (const ProviderEntry& entry : AllProviders()) {
    for (DeviceInfo& device : entry.list()) all.push_back(std::move(device));
  }
  return all;
}

const std::vector<std::unique_ptr<Device>>& Context::devices() const { return state_->devices; }

absl::StatusOr<Listener> Context::Listen(const std::string& address, const ListenOptions& options) {
  auto made = state_->provider->Listen(address, options);
  if (!made.ok()) return made.status();
  return Listener(*std::move(made), state_.get());
}

absl::StatusOr<Path> Context::Resolve(const std::string& address, const ResolveOptions& options) {
  auto made = state_->provider->Resolve(address, options);
  if (!made.ok()) return made.status();
  Device* device = state_->Find((*made)->device());
  Path path(*std::move(made), device, state_->provider.get());
  if (device != nullptr) return path;
  return absl::InternalError(
      absl::StrCat("resolve ", address,
                   ": the way found is on a device that is not the context's. Report this."));
}

std::string Context::address() const {
  Contact contact = state_->provider->contact();
  contact.nonce = state_->nonce;
  return Encode(contact);
}

absl::StatusOr<Device*> Context::Choose(const std::string& peer_address,
                                        std::vector<Candidate>* why) const {
  const absl::StatusOr<Contact> theirs = DecodeContact(peer_address);
  if (!theirs.ok()) return theirs.status();
  Contact whole = state_->provider->contact();
  whole.nonce = state_->nonce;
  const absl::StatusOr<Contact> mine = AsSeen(whole);
  if (!mine.ok()) return mine.status();
  const absl::StatusOr<DevicePair> choice = ChooseDevices(*mine, *theirs);
  if (!choice.ok()) return choice.status();
  VERBENA_LOG(kInfo, "select", "out of band: over ", Explain({.candidates = choice->candidates}));
  if (why != nullptr) *why = choice->candidates;
  for (const auto& device : state_->devices) {
    if (device->name() == choice->device) return device.get();
  }
  return absl::InternalError(
      absl::StrCat("choose: device ", choice->device, " is not the context's. Report this."));
}

ContextCounters Context::counters() const { return state_->provider->counters(); }

EventQueue& Context::events() const { return state_->events; }

}  // namespace verbena
