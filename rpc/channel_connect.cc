// SPDX-License-Identifier: Apache-2.0
// How a channel gets its connection, loses it and gets another.
#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "rpc/channel.h"

namespace verbena::rpc {
namespace {

constexpr double kPauseGrows = 1.6;
constexpr double kPauseJitter = 0.2;

std::chrono::nanoseconds Chrono(absl::Duration duration) {
  return absl::ToChronoNanoseconds(duration);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Channel>> Channel::Open(const std::string& address,
                                                       const ChannelOptions& options) {
  if (options.max_calls == 0 || options.max_calls > 65535) {
    return absl::InvalidArgumentError("rpc: max_calls has to be 1 to 65535");
  }
  if (options.max_message < kLeastMessage || options.max_message > kMostMessage) {
    return absl::InvalidArgumentError("rpc: max_message has to be 4 KiB to 2 GiB");
  }
  auto context = Context::Open(options.context);
  if (!context.ok()) return context.status();
  return std::unique_ptr<Channel>(new Channel(address, options, *std::move(context)));
}

Channel::Channel(const std::string& address, const ChannelOptions& options, Context context)
    : address_(address),
      options_(options),
      context_(std::move(context)),
      driver_(context_, {.wait = options.wait, .spin = options.spin}),
      calls_(options.max_calls) {
  for (uint32_t id = options.max_calls; id > 0; --id) free_.push_back(id - 1);
  driver_.SetTick([this](int64_t now) { return Tick(now); });
  driver_.Start();
}

Channel::~Channel() {
  {
    const std::lock_guard lock(lock_);
    closing_ = true;
    changed_.notify_all();
  }
  if (connector_.joinable()) connector_.join();
  Waiter closed;
  driver_.Post([this, &closed] {
    EndAll();
    closed_ = &closed;
    Reap();
  });
  driver_.Drive(closed);
  driver_.Stop();
}

// Leader.
void Channel::EndAll() {
  const absl::Status why = absl::CancelledError("rpc: the channel is being closed");
  std::vector<ClientContext*> over;
  std::vector<Session*> sessions;
  {
    const std::lock_guard lock(lock_);
    for (ClientContext* call : calls_) {
      if (call == nullptr) continue;
      RemoveLocked(*call);
      over.push_back(call);
    }
    waiting_.clear();
    if (session_ != nullptr) old_.push_back(std::move(session_));
    for (const auto& session : old_) sessions.push_back(session.get());
  }
  for (ClientContext* call : over) Finish(*call, why);
  for (Session* session : sessions) session->End(why);
}

void Channel::OnQuiet(Session&) {
  driver_.Post([this] { Reap(); });
}

// Leader. Not inside of a session's upcall.
void Channel::Reap() {
  std::vector<std::unique_ptr<Session>> quiet;
  bool last = false;
  {
    const std::lock_guard lock(lock_);
    const auto stays = std::partition(old_.begin(), old_.end(), [](const auto& session) {
      return !session->quiet() || session->pins.load() > 0;
    });
    std::move(stays, old_.end(), std::back_inserter(quiet));
    old_.erase(stays, old_.end());
    const bool pinned =
        std::any_of(old_.begin(), old_.end(), [](const auto& session) { return session->quiet(); });
    if (pinned) driver_.Post([this] { Reap(); });
    last = old_.empty() && closed_ != nullptr;
  }
  quiet.clear();
  if (last) driver_.Done(*std::exchange(closed_, nullptr));
}

// A call that has no connection to go to. Not OK: it fails at once.
absl::Status Channel::WaitLocked(ClientContext& call) {
  if (!connecting_) {
    const bool pause = NowNs() < not_before_ns_;
    if (pause && !call.wait_for_ready_) return last_failure_;
    ConnectLocked();
  }
  waiting_.push_back(call.id_);
  return absl::OkStatus();
}

void Channel::ConnectLocked() {
  connecting_ = true;
  if (connector_.joinable()) connector_.join();  // it posted its outcome as its last act
  const int64_t pause = std::max<int64_t>(not_before_ns_ - NowNs(), 0);
  connector_ = std::thread([this, pause] { RunConnector(absl::Nanoseconds(pause)); });
}

void Channel::RunConnector(absl::Duration pause) {
  {
    std::unique_lock lock(lock_);
    if (changed_.wait_for(lock, Chrono(pause), [this] { return closing_; })) return;
  }
  auto session = ConnectOnce();
  if (!session.ok()) {
    driver_.Post([this, why = session.status()] { NotConnected(why); });
  } else {
    driver_.Post([this, made = session->release()] { Connected(std::unique_ptr<Session>(made)); });
  }
}

absl::StatusOr<std::unique_ptr<Session>> Channel::ConnectOnce() {
  auto path = context_.Resolve(address_, {.deadline = options_.connect_timeout});
  if (!path.ok()) return path.status();
  auto session = Session::Make(driver_, path->device(), options_.max_message, *this);
  if (!session.ok()) return session.status();
  auto accepted = path->Connect((*session)->queue_pair(), {.private_data = (*session)->hello(),
                                                           .deadline = options_.connect_timeout});
  absl::Status status = accepted.status();
  if (status.ok()) status = (*session)->SetPeer(accepted->private_data);
  if (status.ok()) return session;
  // Its receives may be completing already: it is destroyed where they are.
  driver_.Post([this, why = status, made = session->release()] {
    std::unique_ptr<Session> failed(made);
    failed->End(why);
    const std::lock_guard lock(lock_);
    old_.push_back(std::move(failed));
    driver_.Post([this] { Reap(); });
  });
  return status;
}

// Leader.
void Channel::Connected(std::unique_ptr<Session> session) {
  if (session->ended() || session->goes_away) {
    if (!session->ended()) session->End(absl::UnavailableError("rpc: the server goes away"));
    {
      const std::lock_guard lock(lock_);
      old_.push_back(std::move(session));
    }
    Reap();
    return NotConnected(absl::UnavailableError("the peer disconnected at once"));
  }
  std::vector<std::pair<ClientContext*, absl::Status>> over;
  {
    const std::lock_guard lock(lock_);
    connecting_ = false;
    if (session_ != nullptr) old_.push_back(std::move(session_));
    session_ = std::move(session);
    failures_ = 0;
    not_before_ns_ = 0;
    ++connections_;
    for (const uint32_t id : std::exchange(waiting_, {})) {
      ClientContext* call = FindLocked(id);
      if (auto status = SendLocked(*call, nullptr); !status.ok()) {
        RemoveLocked(*call);
        over.emplace_back(call, status);
      } else if (!MayRepeat(*call)) {
        call->kept_.clear();
      }
    }
    session_->FlushSoon();
    changed_.notify_all();
  }
  for (const auto& [call, status] : over) Finish(*call, status);
}

// Leader.
void Channel::NotConnected(const absl::Status& why) {
  std::vector<ClientContext*> over;
  absl::Status failure;
  {
    const std::lock_guard lock(lock_);
    connecting_ = false;
    ++failures_;
    last_failure_ = failure = absl::UnavailableError(
        absl::StrCat("rpc: no connection to ", address_, ": ", why.message()));
    absl::BitGen random;
    double pause = absl::ToDoubleNanoseconds(options_.first_pause);
    for (int i = 1; i < failures_ && pause < absl::ToDoubleNanoseconds(options_.longest_pause);
         ++i) {
      pause *= kPauseGrows;
    }
    pause = std::min(pause, absl::ToDoubleNanoseconds(options_.longest_pause));
    pause *= absl::Uniform(random, 1 - kPauseJitter, 1 + kPauseJitter);
    not_before_ns_ = NowNs() + static_cast<int64_t>(pause);
    std::deque<uint32_t> stay;
    for (const uint32_t id : waiting_) {
      ClientContext* call = FindLocked(id);
      // One that is tried again, and does not wait, has a try less for each connection that did not
      // come about.
      if (call->wait_for_ready_ ||
          (call->attempts_ > 0 && ++call->attempts_ < options_.max_attempts)) {
        stay.push_back(id);
      } else {
        RemoveLocked(*call);
        over.push_back(call);
      }
    }
    waiting_.swap(stay);
    if (!waiting_.empty() && !closing_) ConnectLocked();
    changed_.notify_all();
  }
  for (ClientContext* call : over) Finish(*call, failure);
}

absl::Status Channel::WaitUntilConnected(absl::Duration timeout) {
  std::unique_lock lock(lock_);
  if (session_ != nullptr) return absl::OkStatus();
  if (driver_.OnLeader()) {
    return absl::UnavailableError(
        "rpc: there is no connection, and to wait for one on the channel's own thread is for ever");
  }
  const int before = failures_;
  if (!connecting_) ConnectLocked();
  const bool in_time = changed_.wait_for(
      lock, Chrono(timeout), [&] { return session_ != nullptr || failures_ > before || closing_; });
  if (session_ != nullptr) return absl::OkStatus();
  if (!in_time) return absl::DeadlineExceededError("rpc: not connected in time");
  return last_failure_;
}

absl::StatusOr<BulkHandle> Channel::Lend(ClientContext& context, std::span<std::byte> memory,
                                         BulkAccess access) {
  const absl::Duration most = std::min(context.timeout_, absl::Hours(24));
  if (auto status = WaitUntilConnected(most); !status.ok()) return status;
  const std::lock_guard lock(lock_);
  if (session_ == nullptr) return absl::UnavailableError("rpc: the connection was lost again");
  auto region = session_->Register(memory, access == BulkAccess::kRead
                                               ? Access::kRemoteRead
                                               : Access::kLocalWrite | Access::kRemoteWrite);
  if (!region.ok()) return region.status();
  const RemoteBuffer remote = region->remote();
  context.leases_.push_back(*std::move(region));
  context.leased_on_ = connections_;
  BulkHandle handle;
  handle.set_address(remote.address);
  handle.set_length(remote.length);
  handle.set_key(remote.key);
  handle.set_writable(access == BulkAccess::kWrite);
  return handle;
}

ChannelCounters Channel::counters() const {
  const std::lock_guard lock(lock_);
  ChannelCounters counters = counters_;
  counters.connections = connections_;
  if (session_ != nullptr) counters.session = session_->counters();
  return counters;
}

}  // namespace verbena::rpc
