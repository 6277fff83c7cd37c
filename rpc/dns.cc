// SPDX-License-Identifier: Apache-2.0
#include "rpc/dns.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::rpc {

absl::StatusOr<std::vector<std::string>> LookUpHost(const std::string& host,
                                                    const std::string& port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    const std::string what = absl::StrCat("dns: ", host, ": ", gai_strerror(error));
    return error == EAI_NONAME ? absl::NotFoundError(what) : absl::UnavailableError(what);
  }
  std::vector<std::string> addresses;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    std::array<char, NI_MAXHOST> text;
    if (getnameinfo(at->ai_addr, at->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    const bool six = at->ai_family == AF_INET6;
    addresses.push_back(absl::StrCat(six ? "[" : "", text.data(), six ? "]:" : ":", port));
  }
  freeaddrinfo(found);
  return addresses;
}

DnsResolver::~DnsResolver() {
  {
    const std::lock_guard lock(lock_);
    stop_ = true;
    wanted_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void DnsResolver::Start(Changed changed) {
  thread_ = std::thread([this, changed = std::move(changed)] { Run(changed); });
}

void DnsResolver::LookAgain() {
  const std::lock_guard lock(lock_);
  again_ = true;
  wanted_.notify_one();
}

void DnsResolver::Run(const Changed& changed) {
  const auto most = absl::ToChronoNanoseconds(std::max(period_ - soonest_, absl::ZeroDuration()));
  std::unique_lock lock(lock_);
  while (!stop_) {
    again_ = false;
    lock.unlock();
    auto addresses = look_up_();
    const bool found = addresses.ok();
    changed(std::move(addresses));
    lock.lock();
    // Not more often than that, however many servers are lost.
    wanted_.wait_for(lock, absl::ToChronoNanoseconds(soonest_), [this] { return stop_; });
    if (found) wanted_.wait_for(lock, most, [this] { return stop_ || again_; });
  }
}

}  // namespace verbena::rpc
