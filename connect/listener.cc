// SPDX-License-Identifier: Apache-2.0
#include "connect/listener.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "connect/context.h"
#include "connect/request.h"
#include "transport/log.h"

namespace verbena::connect {
namespace {

constexpr const char* kDidNotAsk = "the caller did not ask for RDMA";
constexpr const char* kOffHere = "RDMA is off at the listener";
constexpr const char* kRequiredHere =
    "this listener requires RDMA, and the caller came over TCP; connect with RDMA auto or required";
constexpr const char* kCameOver = "the caller came over this device";

// The devices whose address `at` is, or all of them for any address.
std::vector<Usable> DevicesAt(const Core& core, const std::string& at) {
  const Ip ip = ParseIp(HostOf(at)).value_or(Ip{});
  std::vector<Usable> found;
  for (const Usable& each : core.usable()) {
    const auto& own = each.addresses;
    if (IsAny(ip) || std::find(own.begin(), own.end(), ip) != own.end()) found.push_back(each);
  }
  return found;
}

absl::StatusOr<Doors> OpenDoors(const Core& core, const std::string& address,
                                const ListenOptions& options) {
  ListenOptions of_base = options;
  of_base.rdma = Rdma::kAuto;  // rendezvous is for us to answer, whatever the answer
  auto base = core.base().Listen(address, of_base);
  if (!base.ok()) return base.status();
  Doors doors{*std::move(base)};
  if (core.mode(options.rdma) != Rdma::kRequired) return doors;
  const std::string at = doors.base->address();
  const std::vector<Usable> here = DevicesAt(core, at);
  if (std::any_of(here.begin(), here.end(),
                  [](const Usable& each) { return each.device->info().link == Link::kIwarp; })) {
    (void)doors.base->Close();
    doors.base = nullptr;
  }
  const ListenOptions of_device{.backlog = options.backlog,
                                .handshake_deadline = options.handshake_deadline};
  const provider::Context* last = nullptr;
  for (const Usable& each : here) {
    if (each.provider == std::exchange(last, each.provider)) continue;  // it listens on all its own
    auto door = each.provider->Listen(at, of_device);
    if (!door.ok()) {
      doors.Close();
      return door.status();
    }
    doors.devices.push_back(*std::move(door));
  }
  return doors;
}

}  // namespace

void Doors::Close() {
  if (base != nullptr) (void)base->Close();
  for (auto& each : devices) (void)each->Close();
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(Context* context, Core* core,
                                                           const std::string& address,
                                                           const ListenOptions& options) {
  // A port that is free for the base may be taken on a device.
  auto doors = OpenDoors(*core, address, options);
  for (int tries = PortOf(address) == 0 ? 15 : 0; absl::IsUnavailable(doors.status()) && tries > 0;
       --tries) {
    doors = OpenDoors(*core, address, options);
  }
  if (!doors.ok()) return doors.status();
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    doors->Close();
    return absl::ResourceExhaustedError(absl::StrCat("listen ", address, ": no descriptor left (",
                                                     std::strerror(errno),
                                                     "). Raise the limit: `ulimit -n`"));
  }
  return std::make_unique<Listener>(context, core, *std::move(doors), fd, options);
}

Listener::Listener(Context* context, Core* core, Doors doors, int fd, const ListenOptions& options)
    : context_(*context),
      core_(*core),
      doors_(std::move(doors)),
      fd_(fd),
      options_(options),
      mode_(core->mode(options.rdma)),
      offers_(core, context->tag()) {
  context_.Add(this);
}

Listener::~Listener() { close(fd_); }

absl::Status Listener::Close() {
  context_.Remove(this);  // and this calls CloseUnderLock
  return absl::OkStatus();
}

void Listener::CloseUnderLock() {
  offers_.Close();
  std::deque<std::unique_ptr<provider::ConnectionRequest>> ready;
  {
    const std::lock_guard lock(mutex_);
    ready.swap(ready_);
  }
  for (auto& request : ready) (void)request->Close();
  doors_.Close();
}

std::unique_ptr<provider::ConnectionRequest> Listener::TryNext() {
  std::unique_ptr<provider::ConnectionRequest> request;
  bool was_full = false;
  {
    const std::lock_guard lock(mutex_);
    if (ready_.empty()) return nullptr;
    was_full = ready_.size() >= static_cast<size_t>(options_.backlog);
    request = std::move(ready_.front());
    ready_.pop_front();
    eventfd_t count;
    if (ready_.empty()) (void)eventfd_read(fd_, &count);
  }
  if (was_full) context_.Changed();  // there is room for more
  return request;
}

ListenerCounters Listener::counters() const {
  const std::lock_guard lock(mutex_);
  ListenerCounters counters = counters_;
  if (doors_.base != nullptr) counters.refused += doors_.base->counters().refused;
  for (const auto& each : doors_.devices) counters.refused += each->counters().refused;
  return counters;
}

absl::Duration Listener::Serve(absl::Duration now) {
  const auto room = [this] {
    const std::lock_guard lock(mutex_);
    return ready_.size() < static_cast<size_t>(options_.backlog);
  };
  for (Offers::Arrival& each : offers_.Serve(now)) {
    TakeFromDevice(std::move(each.request), kProven, each.failed);
  }
  for (const auto& each : doors_.devices) {
    while (room()) {
      std::unique_ptr<provider::ConnectionRequest> request = each->TryNext();
      if (request == nullptr) break;
      TakeFromDevice(std::move(request), kCameOver, {});
    }
  }
  while (doors_.base != nullptr && room()) {
    std::unique_ptr<provider::ConnectionRequest> request = doors_.base->TryNext();
    if (request == nullptr) break;
    if (request->rendezvous()) {
      AnswerRendezvous(*request, now);
      (void)request->Close();
    } else {
      TakeFromBase(std::move(request));
    }
  }
  return offers_.NextDeadline();
}

void Listener::AnswerRendezvous(provider::ConnectionRequest& request, absl::Duration now) {
  Answer answer;
  const std::optional<Ask> ask = DecodeAsk(request.private_data());
  if (!ask.has_value()) {
    answer = {.reason = Reason::kMalformed, .text = "the listener does not understand the request"};
    core_.CountRefusal(answer.reason);
  } else if (mode_ == Rdma::kOff) {
    answer = {.reason = Reason::kOff, .text = kOffHere};
    core_.CountRefusal(answer.reason);
  } else {
    answer = offers_.Open(*ask, request.info(), now);
  }
  if (answer.reason != Reason::kNone) {
    VERBENA_LOG_LIMITED(strange_, kInfo, "select", "listen ", address(), ": no way over RDMA for ",
                        request.info().peer, ": ", answer.text);
  }
  if (absl::Status s = request.Reject(Encode(answer)); !s.ok()) {
    VERBENA_LOG_LIMITED(strange_, kWarn, "select", "listen ", address(), ": ", s.message());
  }
}

void Listener::TakeFromBase(std::unique_ptr<provider::ConnectionRequest> request) {
  // The caller's own words if it brought a note.
  std::vector<Candidate> losers;
  for (const Candidate& each : request->info().candidates) {
    if (!each.chosen) losers.push_back(each);
  }
  if (mode_ == Rdma::kRequired) {
    const std::string why = losers.empty() ? kDidNotAsk : losers.front().reason;
    VERBENA_LOG(kInfo, "select", "listen ", address(), ": rejected ", request->info().peer,
                ", which came over TCP: ", why);
    core_.CountRefusal(Reason::kNotAsked);
    (void)request->Reject(kRequiredHere);
    (void)request->Close();
    const std::lock_guard lock(mutex_);
    ++counters_.refused;
    return;
  }
  provider::Selection selection;
  if (losers.empty()) {
    selection.candidates = core_.WithoutRdma(mode_, kDidNotAsk);
    if (!core_.usable().empty())
      core_.CountRefusal(mode_ == Rdma::kOff ? Reason::kOff : Reason::kNotAsked);
  } else {
    selection.candidates = core_.AsTold(std::move(losers));
  }
  request->Announce(selection);
  Hand(std::move(request));
}

void Listener::TakeFromDevice(std::unique_ptr<provider::ConnectionRequest> request, const char* why,
                              const std::vector<Candidate>& failed) {
  provider::Selection selection;
  selection.candidates = core_.OnDevice(*request->device(), why, mode_, failed);
  request->Announce(selection);
  Hand(std::move(request));
}

void Listener::Hand(std::unique_ptr<provider::ConnectionRequest> request) {
  {
    const std::lock_guard lock(mutex_);
    ++counters_.requests;
    ready_.push_back(std::make_unique<Request>(&core_, std::move(request)));
    if (ready_.size() == 1) (void)eventfd_write(fd_, 1);
  }
  core_.base().Wake();
}

}  // namespace verbena::connect
