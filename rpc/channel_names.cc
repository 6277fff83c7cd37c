// SPDX-License-Identifier: Apache-2.0
// What a channel's name stands for, and which of its connections a call goes to.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "rpc/channel.h"
#include "rpc/dns.h"

namespace verbena::rpc {

// Some addresses, or somebody who finds them.
struct Channel::Found {
  std::vector<std::string> addresses;
  std::unique_ptr<Resolver> resolver;
};

absl::StatusOr<Channel::Found> Channel::Find(const std::string& name,
                                             const ChannelOptions& options) {
  if (options.names) {
    auto resolver = options.names(name);
    if (!resolver.ok()) return resolver.status();
    if (*resolver != nullptr) return Found{.addresses = {}, .resolver = *std::move(resolver)};
  }
  if (absl::StartsWith(name, "etcd:") && absl::StrContains(name, '/')) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rpc: ", name, ": etcd is a library of its own; link //rpc/names and set options.names"));
  }
  const absl::string_view host_port = absl::StripPrefix(name, "dns:");
  const size_t colon = host_port.rfind(':');
  if (host_port.size() == name.size() || colon == absl::string_view::npos) {
    Found found{.addresses = absl::StrSplit(name, ','), .resolver = nullptr};
    if (std::ranges::find(found.addresses, "") != found.addresses.end()) {
      return absl::InvalidArgumentError(absl::StrCat("rpc: \"", name, "\" has an empty address"));
    }
    return found;
  }
  std::string host(host_port.substr(0, colon));
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  const std::string port(host_port.substr(colon + 1));
  return Found{.addresses = {},
               .resolver = std::make_unique<DnsResolver>(
                   [host, port] { return LookUpHost(host, port); }, options.resolve_period)};
}

absl::StatusOr<std::unique_ptr<Channel>> Channel::Open(const std::string& address,
                                                       const ChannelOptions& options) {
  if (options.max_calls == 0 || options.max_calls > 65535) {
    return absl::InvalidArgumentError("rpc: max_calls has to be 1 to 65535");
  }
  if (options.max_message < kLeastMessage || options.max_message > kMostMessage) {
    return absl::InvalidArgumentError("rpc: max_message has to be 4 KiB to 2 GiB");
  }
  auto found = Find(address, options);
  if (!found.ok()) return found.status();
  auto context = Context::Open(options.context);
  if (!context.ok()) return context.status();
  return std::unique_ptr<Channel>(
      new Channel(address, *std::move(found), options, *std::move(context)));
}

Channel::Channel(const std::string& name, Found found, const ChannelOptions& options,
                 Context context)
    : name_(name),
      options_(options),
      eager_(found.resolver != nullptr || found.addresses.size() > 1),
      context_(std::move(context)),
      driver_(context_, {.wait = options.wait, .spin = options.spin}),
      calls_(options.max_calls),
      resolving_(found.resolver != nullptr),
      resolver_(std::move(found.resolver)) {
  for (uint32_t id = options.max_calls; id > 0; --id) free_.push_back(id - 1);
  for (std::string& address : found.addresses) {
    targets_.push_back(std::make_unique<Target>(std::move(address)));
  }
  driver_.SetTick([this](int64_t now) { return Tick(now); });
  driver_.Start();
  if (resolver_ != nullptr) {
    resolver_->Start([this](absl::StatusOr<std::vector<std::string>> addresses) {
      driver_.Post([this, now = std::move(addresses)] { Resolved(now); });
    });
  } else if (eager_) {
    const std::lock_guard lock(lock_);
    TryLocked();
  }
}

Channel::~Channel() {
  std::unique_ptr<Resolver> resolver;
  std::vector<std::thread> connectors;
  {
    const std::lock_guard lock(lock_);
    closing_ = true;
    changed_.notify_all();
    resolver = std::move(resolver_);
    for (const auto& target : targets_) connectors.push_back(std::move(target->connector));
    for (const auto& target : leaving_) connectors.push_back(std::move(target->connector));
  }
  resolver.reset();
  for (std::thread& connector : connectors) {
    if (connector.joinable()) connector.join();
  }
  Waiter closed;
  driver_.Post([this, &closed] {
    EndAll();
    closed_ = &closed;
    Reap();
  });
  driver_.Drive(closed);
  driver_.Stop();
}

// Leader. The answer of the resolver.
void Channel::Resolved(const absl::StatusOr<std::vector<std::string>>& addresses) {
  Over over;
  {
    const std::lock_guard lock(lock_);
    if (closing_) return;
    resolving_ = false;
    if (!addresses.ok()) {
      if (targets_.empty()) last_failure_ = absl::UnavailableError(addresses.status().message());
    } else {
      for (const auto& target : targets_) {
        target->leaving = std::ranges::find(*addresses, target->address) == addresses->end();
      }
      const auto stays = std::partition(targets_.begin(), targets_.end(),
                                        [](const auto& target) { return !target->leaving; });
      for (auto gone = stays; gone != targets_.end(); ++gone) LetGoLocked(**gone);
      std::move(stays, targets_.end(), std::back_inserter(leaving_));
      targets_.erase(stays, targets_.end());
      std::erase_if(leaving_, [](const auto& target) { return !target->connecting; });
      for (const std::string& address : *addresses) {
        const bool there = std::any_of(targets_.begin(), targets_.end(), [&](const auto& target) {
          return target->address == address;
        });
        if (!there) targets_.push_back(std::make_unique<Target>(address));
      }
      if (targets_.empty()) {
        last_failure_ = absl::UnavailableError(absl::StrCat("rpc: no server is known for ", name_));
      }
      TryLocked();
    }
    if (!TryingLocked() && PickLocked() == nullptr) over = GiveUpLocked();
    changed_.notify_all();
  }
  FinishAll(std::move(over));
  EndIdle();
}

// The calls that run there may end.
void Channel::LetGoLocked(Target& target) {
  if (target.session != nullptr) old_.push_back(std::move(target.session));
  if (target.health != nullptr) std::exchange(target.health, nullptr)->target = nullptr;
  if (!target.connecting && target.connector.joinable()) target.connector.join();
}

// Where the fewest calls run; among equals each in turn. Null: there is no connection.
Session* Channel::PickLocked() {
  const size_t count = targets_.size();
  if (count == 1) return targets_[0]->usable() ? targets_[0]->session.get() : nullptr;
  Session* best = nullptr;
  size_t at = turn_++;
  for (size_t i = 0; i < count; ++i, ++at) {
    const Target& target = *targets_[at % count];
    if (!target.usable()) continue;
    if (best == nullptr || target.session->calls < best->calls) best = target.session.get();
  }
  return best;
}

// One that has lent memory is bound to that connection.
Session* Channel::SessionForLocked(const ClientContext& call) {
  if (call.leases_.empty()) return PickLocked();
  for (const auto& target : targets_) {
    if (target->usable() && target->session->number == call.leased_on_) {
      return target->session.get();
    }
  }
  return nullptr;
}

}  // namespace verbena::rpc
