// SPDX-License-Identifier: Apache-2.0
// How a channel gets its connections, loses them and gets others.
#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "rpc/channel.h"

namespace verbena::rpc {
namespace {

constexpr double kPauseGrows = 1.6;
constexpr double kPauseJitter = 0.2;

// A channel that was idle for so long looks whether its connections still stand: nobody did.
constexpr int64_t kIdleNs = 10'000'000;

// What condition variables can add to the time of day.
std::chrono::nanoseconds Chrono(absl::Duration duration) {
  return absl::ToChronoNanoseconds(std::min(duration, absl::Hours(24 * 365)));
}

// Before the next attempt, after so many that failed in a row.
int64_t PauseNs(const ChannelOptions& options, int failures) {
  absl::BitGen random;
  const double longest = absl::ToDoubleNanoseconds(options.longest_pause);
  double pause = absl::ToDoubleNanoseconds(options.first_pause);
  for (int i = 1; i < failures && pause < longest; ++i) pause *= kPauseGrows;
  pause = std::min(pause, longest);
  return static_cast<int64_t>(pause * absl::Uniform(random, 1 - kPauseJitter, 1 + kPauseJitter));
}

}  // namespace

// Leader.
void Channel::EndAll() {
  const absl::Status why = absl::CancelledError("rpc: the channel is being closed");
  Over over;
  std::vector<Session*> sessions;
  {
    const std::lock_guard lock(lock_);
    for (ClientContext* call : calls_) {
      if (call == nullptr) continue;
      RemoveLocked(*call);
      over.emplace_back(call, why);
    }
    waiting_.clear();
    for (const auto& target : targets_) {
      if (target->session != nullptr) old_.push_back(std::move(target->session));
      target->health = nullptr;
    }
    for (const auto& watch : watches_) watch->target = nullptr;
    for (const auto& session : old_) sessions.push_back(session.get());
  }
  FinishAll(std::move(over));
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

// Leader, or with nobody in the way. Each that has no connection gets one, or tries.
void Channel::TryLocked() {
  for (const auto& target : targets_) {
    if (target->session == nullptr && !target->connecting) ConnectLocked(*target);
  }
}

void Channel::ConnectLocked(Target& target) {
  target.connecting = true;
  if (target.connector.joinable()) target.connector.join();  // it posted its outcome at its end
  const int64_t pause = std::max<int64_t>(target.not_before_ns - NowNs(), 0);
  target.connector =
      std::thread([this, &target, pause] { RunConnector(target, absl::Nanoseconds(pause)); });
}

void Channel::RunConnector(Target& target, absl::Duration pause) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      absl::CancelledError("the name does not stand for it any more");
  bool leaving = false;
  {
    std::unique_lock lock(lock_);
    changed_.wait_for(lock, Chrono(pause), [&] { return closing_ || target.leaving; });
    if (closing_) return;
    leaving = target.leaving;
  }
  if (!leaving) session = ConnectOnce(target.address);
  if (!session.ok()) {
    driver_.Post([this, &target, why = session.status()] { NotConnected(target, why); });
  } else {
    driver_.Post([this, &target, made = session->release()] {
      Connected(target, std::unique_ptr<Session>(made));
    });
  }
}

absl::StatusOr<std::unique_ptr<Session>> Channel::ConnectOnce(const std::string& address) {
  auto path = context_.Resolve(address, {.deadline = options_.connect_timeout});
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
void Channel::Connected(Target& target, std::unique_ptr<Session> session) {
  bool unwanted = session->goes_away;
  {
    const std::lock_guard lock(lock_);
    unwanted |= target.leaving;
  }
  absl::Status status;
  if (unwanted) status = absl::UnavailableError("rpc: the server goes away");
  std::unique_ptr<HealthWatch> watch;
  if (options_.health.has_value() && status.ok()) {
    watch = NewWatch();
    status = Intercept(watch->context);
  }
  if (!status.ok()) session->End(status);
  if (session->ended()) {
    {
      const std::lock_guard lock(lock_);
      old_.push_back(std::move(session));
    }
    Reap();
    if (status.ok()) status = absl::UnavailableError("the peer disconnected at once");
    return NotConnected(target, status);
  }
  Over over;
  {
    const std::lock_guard lock(lock_);
    target.connecting = false;
    if (watch == nullptr) target.failures = 0;  // else it has to say that it serves
    target.not_before_ns = 0;
    target.session = std::move(session);
    target.session->number = ++connections_;
    if (watch != nullptr) WatchHealthLocked(target, std::move(watch));
    over = SendWaitingLocked();
    changed_.notify_all();
  }
  FinishAll(std::move(over));
}

// Leader.
void Channel::NotConnected(Target& target, const absl::Status& why) {
  Over over;
  {
    const std::lock_guard lock(lock_);
    target.connecting = false;
    if (target.leaving) {
      ForgetLocked(target);
    } else {
      last_failure_ = absl::UnavailableError(
          absl::StrCat("rpc: no connection to ", target.address, ": ", why.message()));
      target.not_before_ns = NowNs() + PauseNs(options_, ++target.failures);
      if (resolver_ != nullptr) resolver_->LookAgain();
    }
    if (!TryingLocked()) over = GiveUpLocked();
    if ((eager_ || !waiting_.empty()) && !closing_) TryLocked();
    changed_.notify_all();
  }
  FinishAll(std::move(over));
}

void Channel::ForgetLocked(Target& target) {
  if (target.connector.joinable()) target.connector.join();
  std::erase_if(leaving_, [&](const auto& it) { return it.get() == &target; });
}

Target* Channel::TargetOfLocked(const Session& session) {
  for (const auto& target : targets_) {
    if (target->session.get() == &session) return target.get();
  }
  return nullptr;
}

// Nothing is begun any more on the connection that it has.
void Channel::LostLocked(Target& target) {
  old_.push_back(std::move(target.session));
  if (target.health != nullptr) std::exchange(target.health, nullptr)->target = nullptr;
  // A server that accepts and hangs up is not asked without a pause.
  if (eager_ || target.failures > 0) {
    target.not_before_ns = NowNs() + PauseNs(options_, std::max(target.failures, 1));
  }
  if (!eager_ || closing_) return;
  ConnectLocked(target);
  if (resolver_ != nullptr) resolver_->LookAgain();
}

// What is sent on a connection that has ended is lost, and may not be tried again.
void Channel::LookAfterIdlingLocked() {
  const bool was_idle = NowNs() - idle_since_ns_ >= kIdleNs;
  for (const auto& target : targets_) {
    Session* const gone = target->session.get();
    if (gone == nullptr) continue;
    if (!gone->ended() && (!was_idle || gone->queue_pair().state() == QpState::kRts)) continue;
    gone->pins.fetch_add(1);
    LostLocked(*target);
    driver_.Post([this, gone] {
      gone->pins.fetch_sub(1);
      gone->End(absl::UnavailableError("the connection was lost while nothing was running"));
      Reap();
    });
  }
}

// Somebody may get a connection soon, who has not failed just now.
bool Channel::TryingLocked() const {
  if (resolving_) return true;
  const int64_t now = NowNs();
  return std::any_of(targets_.begin(), targets_.end(), [&](const auto& target) {
    if (target->session != nullptr) {
      // Its end is on its way to OnEnd; or its server has not said yet how it is.
      return target->session->ended() ||
             (target->health != nullptr && target->health->state == HealthResponse::UNKNOWN);
    }
    return target->connecting && (target->failures == 0 || now >= target->not_before_ns);
  });
}

// A call that has no connection to go to. Not OK: it fails at once.
absl::Status Channel::WaitLocked(ClientContext& call) {
  if (!call.leases_.empty()) {
    return absl::UnavailableError("rpc: the connection that memory was lent on is gone");
  }
  const int64_t now = NowNs();
  for (const auto& target : targets_) {
    const bool may = call.wait_for_ready_ || now >= target->not_before_ns;
    if (may && target->session == nullptr && !target->connecting) ConnectLocked(*target);
  }
  if (!call.wait_for_ready_ && !TryingLocked()) return last_failure_;
  waiting_.push_back(call.id_);
  return absl::OkStatus();
}

// To whoever has come about.
Channel::Over Channel::SendWaitingLocked() {
  Over over;
  for (const uint32_t id : std::exchange(waiting_, {})) {
    ClientContext* call = FindLocked(id);
    Session* const session = SessionForLocked(*call);
    if (session == nullptr) {
      waiting_.push_back(id);
      continue;
    }
    if (auto status = SendLocked(*call, nullptr, *session); !status.ok()) {
      RemoveLocked(*call);
      over.emplace_back(call, status);
    } else if (!MayRepeat(*call)) {
      call->kept_.clear();
    }
    session->FlushSoon();
  }
  return over;
}

// Nobody is left to wait for now.
Channel::Over Channel::GiveUpLocked() {
  Over over;
  ++gave_up_;
  std::deque<uint32_t> stay;
  for (const uint32_t id : waiting_) {
    ClientContext* call = FindLocked(id);
    // One that is tried again, and does not wait, has a try less for each time.
    if (call->wait_for_ready_ ||
        (call->attempts_ > 0 && ++call->attempts_ < options_.max_attempts)) {
      stay.push_back(id);
    } else {
      RemoveLocked(*call);
      over.emplace_back(call, last_failure_);
    }
  }
  waiting_.swap(stay);
  return over;
}

absl::Status Channel::WaitUntilConnected(absl::Duration timeout) {
  std::unique_lock lock(lock_);
  if (PickLocked() != nullptr) return absl::OkStatus();
  if (driver_.OnLeader()) {
    return absl::UnavailableError(
        "rpc: there is no connection, and to wait for one on the channel's own thread is for ever");
  }
  const uint64_t before = gave_up_;
  TryLocked();
  if (targets_.empty() && !TryingLocked()) return last_failure_;  // known before it was asked for
  const bool in_time = changed_.wait_for(lock, Chrono(timeout), [&] {
    return PickLocked() != nullptr || gave_up_ > before || closing_;
  });
  if (PickLocked() != nullptr) return absl::OkStatus();
  if (!in_time) return absl::DeadlineExceededError("rpc: not connected in time");
  return last_failure_;
}

absl::StatusOr<BulkHandle> Channel::Lend(ClientContext& context, std::span<std::byte> memory,
                                         BulkAccess access) {
  if (auto status = WaitUntilConnected(context.timeout_); !status.ok()) return status;
  const std::lock_guard lock(lock_);
  Session* const session = SessionForLocked(context);
  if (session == nullptr) return absl::UnavailableError("rpc: the connection was lost again");
  auto region = session->Register(memory, access == BulkAccess::kRead
                                              ? Access::kRemoteRead
                                              : Access::kLocalWrite | Access::kRemoteWrite);
  if (!region.ok()) return region.status();
  const RemoteBuffer remote = region->remote();
  context.leases_.push_back(*std::move(region));
  context.leased_on_ = session->number;
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
  counters.addresses = static_cast<uint32_t>(targets_.size());
  for (const auto& target : targets_) {
    if (target->usable()) ++counters.usable;
    if (target->session != nullptr) counters.session += target->session->counters();
  }
  return counters;
}

}  // namespace verbena::rpc
