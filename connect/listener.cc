// SPDX-License-Identifier: Apache-2.0
#include "connect/listener.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

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

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(Context* context, Core* core,
                                                           const std::string& address,
                                                           const ListenOptions& options) {
  ListenOptions of_base = options;
  of_base.rdma = Rdma::kAuto;  // rendezvous is for us to answer, whatever the answer
  auto base = core->base().Listen(address, of_base);
  if (!base.ok()) return base.status();
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    (void)(*base)->Close();
    return absl::ResourceExhaustedError(absl::StrCat("listen ", address, ": no descriptor left (",
                                                     std::strerror(errno),
                                                     "). Raise the limit: `ulimit -n`"));
  }
  return std::make_unique<Listener>(context, core, *std::move(base), fd, options);
}

Listener::Listener(Context* context, Core* core, std::unique_ptr<provider::Listener> base, int fd,
                   const ListenOptions& options)
    : context_(*context),
      core_(*core),
      base_(std::move(base)),
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
  (void)base_->Close();
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
  counters.refused += base_->counters().refused;
  return counters;
}

absl::Duration Listener::Serve(absl::Duration now) {
  const auto room = [this] {
    const std::lock_guard lock(mutex_);
    return ready_.size() < static_cast<size_t>(options_.backlog);
  };
  std::vector<std::unique_ptr<provider::ConnectionRequest>> arrived;
  offers_.Serve(now, &arrived);
  for (auto& request : arrived) TakeFromDevice(std::move(request));
  while (room()) {
    std::unique_ptr<provider::ConnectionRequest> request = base_->TryNext();
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

void Listener::TakeFromDevice(std::unique_ptr<provider::ConnectionRequest> request) {
  provider::Selection selection;
  selection.candidates = core_.OnDevice(*request->device());
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
