// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/environment.h"

#include <poll.h>

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/conformance/grounds.h"
#include "transport/providers.h"

namespace verbena::conformance {

void PrintTo(const ProviderCase& provider, std::ostream* out) { *out << provider.name; }

std::string WhyUnusable(const ProviderEntry& provider) {
  std::string reasons;
  for (const DeviceInfo& device : provider.list()) {
    if (device.usable) return "";
    absl::StrAppend(&reasons, reasons.empty() ? "" : "; ", device.name, ": ", device.reason);
  }
  return reasons.empty() ? absl::StrCat(provider.name, ": no device") : reasons;
}

std::vector<ProviderCase> KernelProviders() {
  std::vector<ProviderCase> cases;
  for (const auto& provider : AllProviders()) {
    const std::string name(provider.name);
    if (!WhyUnusable(provider).empty()) continue;  // Grounds.EveryProviderHasOne says so aloud
    cases.push_back({name, [name](const std::string&) { return KernelGround(name); }});
  }
  return cases;
}

std::vector<ProviderCase> Providers() {
  std::vector<ProviderCase> cases = KernelProviders();
  for (uint64_t seed : {1, 2, 3}) {
    cases.push_back({absl::StrCat("sim_", seed), [seed](const std::string& test) {
                       return SimulatedGround(seed, SeedFor(seed, test));
                     }});
  }
  return cases;
}

void ConformanceBase::Open(const ProviderCase& provider) {
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  ground_ = provider.make(absl::StrCat(test.test_suite_name(), ".", test.name()));
  trace_.emplace(__FILE__, __LINE__, absl::StrCat(provider.name, " ", ground_->Report()));
  server_.emplace(Check(ground_->NewHost()));
  client_.emplace(Check(ground_->NewHost()));
  ASSERT_FALSE(server_->devices().empty());
  ASSERT_FALSE(client_->devices().empty());
}

void ConformanceBase::TearDown() {
  if (HasFailure() && ground_ != nullptr) std::cerr << ground_->Report() << "\n";
  // What a case made is gone by now: nothing may be left that keeps a context open.
  if (idle_.is_open()) {
    EXPECT_THAT(idle_.Close(), IsOk());
  }
  for (std::optional<Context>* host : {&client_, &server_}) {
    if (*host) {
      EXPECT_THAT((*host)->Close(), IsOk());
    }
    host->reset();
  }
}

void ConformanceBase::RunFor(absl::Duration time) {
  // Not before: a device that somebody has open cannot be removed.
  if (!idle_.is_open()) idle_ = Check(client_->devices()[0]->CreateCompletionChannel());
  (void)idle_.Next(time);
}

bool ConformanceBase::RunUntil(absl::FunctionRef<bool()> done, absl::Duration limit) {
  constexpr absl::Duration kSlice = absl::Milliseconds(1);
  for (absl::Duration spent; !done(); spent += kSlice) {
    if (spent >= limit) return false;
    RunFor(kSlice);
  }
  return true;
}

bool ConformanceBase::Spin(absl::FunctionRef<bool()> done) {
  // Polls of a simulated world move its clock; a real one has its own.
  constexpr int kPolls = 100'000;
  const absl::Time end = absl::Now() + kLong;
  for (int polls = 0; !done(); ++polls) {
    if (simulated() ? polls >= kPolls : absl::Now() >= end) return false;
  }
  return true;
}

bool ConformanceBase::WaitReadable(int fd, absl::Duration limit) {
  return RunUntil(
      [fd] {
        pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
        return poll(&entry, 1, 0) == 1;
      },
      limit);
}

std::vector<WorkCompletion> ConformanceBase::WaitFor(CompletionQueue& cq, size_t count, Line line) {
  std::vector<WorkCompletion> all;
  const auto take = [&] {
    WorkCompletion batch[64];
    const size_t got = cq.Poll({batch, std::min(count - all.size(), std::size(batch))});
    all.insert(all.end(), batch, batch + got);
    return got > 0;
  };
  while (all.size() < count) {
    if (take()) continue;
    bool came = false;
    if (simulated()) {
      // An empty poll passes the time to the network's next event, so what is on its way comes at
      // its own pace and a case plays alike each time. The rest is for what waits for a timer.
      for (int i = 0; i < 1000 && !came; ++i) came = take();
      if (!came) came = RunUntil(take);
    } else if (absl::StatusOr<std::vector<WorkCompletion>> next = cq.Wait(1, kLong); next.ok()) {
      all.push_back(next->front());
      came = true;
    }
    if (came) continue;
    if (all.size() > 100) all.erase(all.begin(), all.end() - 100);
    Stop(absl::StrCat("waited for ", count,
                      " completions; the last that came: ", testing::PrintToString(all)),
         line);
  }
  return all;
}

bool ConformanceBase::StaysEmpty(CompletionQueue& cq, absl::Duration time) {
  RunFor(time);
  WorkCompletion unwanted;
  if (cq.Poll({&unwanted, 1}) == 0) return true;
  ADD_FAILURE() << "unexpected completion " << testing::PrintToString(unwanted);
  return false;
}

Event ConformanceBase::WaitForEvent(Context& context, EventType type, Line line) {
  std::vector<Event> others;
  for (;;) {
    absl::StatusOr<Event> event = context.events().Next(kLong);
    if (!event.ok()) {
      Stop(absl::StrCat("the ", &context == &server() ? "server" : "client", " waited for event ",
                        EventTypeName(type), ", got ", testing::PrintToString(others), "; ",
                        event.status().ToString()),
           line);
    }
    if (event->type == type) return *std::move(event);
    others.push_back(*std::move(event));
  }
}

bool ConformanceBase::NoEvent(Context& context, EventType type, absl::Duration time) {
  RunFor(time);
  while (std::optional<Event> event = context.events().TryNext()) {
    if (event->type == type) return false;
  }
  return true;
}

}  // namespace verbena::conformance
