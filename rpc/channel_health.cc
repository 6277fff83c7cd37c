// SPDX-License-Identifier: Apache-2.0
// A channel that asks its servers whether they want calls. Each connection has a watch, a call of
// the health service; all of it on the leader.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/health.verbena.h"
#include "rpc/channel.h"

namespace verbena::rpc {

// Without the lock, as interceptors see it next.
std::unique_ptr<HealthWatch> Channel::NewWatch() {
  auto watch = std::make_unique<HealthWatch>();
  ClientContext& call = watch->context;
  watch->ended = [this, its = watch.get()](const absl::Status& status) {
    OnHealthEnd(*its, status);
  };
  call.internal_ = true;
  call.method_ = &Health::kWatch;
  call.response_ = &watch->answer;
  call.done_ = watch.get();
  call.stream_ = &watch->stream;
  call.deadline_ns_ = std::numeric_limits<int64_t>::max();
  watch->stream.SetBroken([this, &call](const absl::Status& why) { EndSoon(call, why); });
  return watch;
}

void Channel::WatchHealthLocked(Target& target, std::unique_ptr<HealthWatch> watch) {
  if (free_.empty()) return;  // so many calls wait that there is no number for it
  HealthWatch& entered = *watches_.emplace_back(std::move(watch));
  entered.target = &target;
  target.health = &entered;
  AttendLocked(entered, true);
  EnterLocked(entered.context);
  HealthRequest request;
  request.set_service(*options_.health);
  // If it cannot be sent the connection has ended, and OnEnd comes for it.
  (void)SendLocked(entered.context, &request, *target.session);
  target.session->FlushSoon();
  driver_.Post([this, &entered] { ReadHealth(entered); });
}

void Channel::ReadHealth(HealthWatch& watch) {
  watch.stream.Read(&watch.next, [this, &watch](bool some) {
    if (!some || watch.over) return;  // OnHealthEnd says why
    OnHealth(watch);
    // Not from here: a server may have sent thousands.
    driver_.Post([this, &watch] { ReadHealth(watch); });
  });
}

void Channel::OnHealth(HealthWatch& watch) {
  Over over;
  {
    const std::lock_guard lock(lock_);
    if (watch.target == nullptr) return;
    watch.state = watch.next.state();
    const bool serves = watch.state == HealthResponse::SERVING;
    AttendLocked(watch, !serves);
    if (serves) {
      watch.target->failures = 0;
      over = SendWaitingLocked();
    } else {
      last_failure_ = absl::UnavailableError(
          absl::StrCat("rpc: ", watch.target->address, " says that it does not serve"));
      if (PickLocked() == nullptr && !TryingLocked()) over = GiveUpLocked();
    }
    changed_.notify_all();
  }
  FinishAll(std::move(over));
}

void Channel::OnHealthEnd(HealthWatch& watch, const absl::Status& status) {
  Over over;
  {
    const std::lock_guard lock(lock_);
    watch.over = true;
    AttendLocked(watch, false);
    if (Target* target = std::exchange(watch.target, nullptr); target != nullptr) {
      target->health = nullptr;
      if (absl::IsUnimplemented(status)) {
        target->failures = 0;
        over = SendWaitingLocked();  // it has no such service: it serves
      } else {
        last_failure_ = absl::UnavailableError(absl::StrCat(
            "rpc: ", target->address, " does not tell its health: ", status.message()));
        ++target->failures;
        LostLocked(*target);
        if (PickLocked() == nullptr && !TryingLocked()) over = GiveUpLocked();
      }
      changed_.notify_all();
    }
  }
  FinishAll(std::move(over));
  // Whoever called this still has to do with it.
  driver_.Post([this, &watch] {
    {
      const std::lock_guard lock(lock_);
      std::erase_if(watches_, [&](const auto& it) { return it.get() == &watch; });
    }
    EndIdle();
  });
}

void Channel::AttendLocked(HealthWatch& watch, bool attended) {
  if (std::exchange(watch.attended, attended) == attended) return;
  if (attended) {
    driver_.Attend();
  } else {
    driver_.Unattend();
  }
}

}  // namespace verbena::rpc
