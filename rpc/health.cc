// SPDX-License-Identifier: Apache-2.0
#include "rpc/health.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::rpc {

// co_await it: until something is not as it was at `seen`, or the caller is gone.
class HealthService::Change {
 public:
  Change(HealthService& service, uint64_t watcher, uint64_t* seen)
      : service_(service), watcher_(watcher), seen_(*seen) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> caller) {
    {
      const std::lock_guard lock(service_.lock_);
      Watcher& its = service_.watchers_[watcher_];
      if (its.gone || service_.version_ != seen_) return false;
      its.wake = [this] { suspension_.Resume(); };
    }
    return suspension_.Suspend(caller);
  }
  void await_resume() {
    const std::lock_guard lock(service_.lock_);
    seen_ = service_.version_;
  }

 private:
  HealthService& service_;
  const uint64_t watcher_;
  uint64_t& seen_;
  Suspension suspension_;
};

std::vector<std::function<void()>> HealthService::ChangedLocked() {
  ++version_;
  std::vector<std::function<void()>> wake;
  for (auto& [id, watcher] : watchers_) {
    if (watcher.wake) wake.push_back(std::exchange(watcher.wake, nullptr));
  }
  return wake;
}

void HealthService::SetServing(const std::string& service, bool serving) {
  std::vector<std::function<void()>> wake;
  {
    const std::lock_guard lock(lock_);
    serving_[service] = serving;
    wake = ChangedLocked();
  }
  for (const auto& run : wake) run();
}

void HealthService::ShutDown() {
  std::vector<std::function<void()>> wake;
  {
    const std::lock_guard lock(lock_);
    shut_down_ = true;
    wake = ChangedLocked();
  }
  for (const auto& run : wake) run();
}

HealthResponse::State HealthService::StateOf(const std::string& service) {
  const std::lock_guard lock(lock_);
  const auto found = serving_.find(service);
  if (found == serving_.end()) return HealthResponse::NO_SUCH_SERVICE;
  const bool serves = found->second && serving_[""] && !shut_down_;
  return serves ? HealthResponse::SERVING : HealthResponse::NOT_SERVING;
}

void HealthService::Check(ServerCall<HealthRequest, HealthResponse> call) {
  const std::string& service = call.request().service();
  HealthResponse response;
  response.set_state(StateOf(service));
  if (response.state() == HealthResponse::NO_SUCH_SERVICE) {
    return call.Finish(absl::NotFoundError(absl::StrCat("rpc: no service ", service, " here")));
  }
  call.Finish(response);
}

uint64_t HealthService::Enter() {
  const std::lock_guard lock(lock_);
  watchers_[next_] = {};
  return next_++;
}

// It also leaves the table.
bool HealthService::Gone(uint64_t watcher) {
  const std::lock_guard lock(lock_);
  const bool gone = watchers_[watcher].gone;
  if (gone) watchers_.erase(watcher);
  return gone;
}

// The read that says that nothing comes any more also says that nobody listens.
Detached HealthService::AwaitCaller(uint64_t watcher, Stream& stream) {
  HealthRequest none;
  while (co_await stream.CoRead(&none)) {
  }
  std::function<void()> wake;
  {
    const std::lock_guard lock(lock_);
    const auto found = watchers_.find(watcher);
    if (found == watchers_.end()) co_return;
    found->second.gone = true;
    wake = std::exchange(found->second.wake, nullptr);
  }
  if (wake) wake();
}

Task<absl::Status> HealthService::Watch(ServerContext&, const HealthRequest& request,
                                        Stream& stream) {
  const uint64_t watcher = Enter();
  AwaitCaller(watcher, stream);
  std::optional<HealthResponse::State> told;
  uint64_t seen = 0;
  for (;;) {
    co_await Change(*this, watcher, &seen);
    if (Gone(watcher)) co_return absl::CancelledError("rpc: nobody watches any more");
    const HealthResponse::State now = StateOf(request.service());
    if (told != now) {
      HealthResponse response;
      response.set_state(now);
      const bool sent = co_await stream.CoWrite(response);
      if (!sent) continue;  // the caller is about to be gone
      told = now;
    }
    bool over = false;
    {
      const std::lock_guard lock(lock_);
      over = shut_down_;
      if (over) watchers_.erase(watcher);
    }
    if (over) co_return absl::UnavailableError("rpc: the server shuts down");
  }
}

}  // namespace verbena::rpc
