// SPDX-License-Identifier: Apache-2.0
#include "connect/memory.h"

#include <algorithm>

#include "connect/limits.h"

namespace verbena::connect {

std::optional<Verdict> Memory::Recall(const std::string& address, absl::Duration now) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(address);
  if (it == entries_.end()) return std::nullopt;
  if (it->second.until > now) return it->second.verdict;
  entries_.erase(it);
  return std::nullopt;
}

void Memory::Remember(const std::string& address, const Verdict& verdict, absl::Duration now) {
  const std::lock_guard lock(mutex_);
  if (entries_.size() >= kRemembered) {
    std::erase_if(entries_, [now](const auto& each) { return each.second.until <= now; });
  }
  if (entries_.size() >= kRemembered) {
    entries_.erase(std::min_element(entries_.begin(), entries_.end(), [](auto& a, auto& b) {
      return a.second.until < b.second.until;
    }));
  }
  entries_[address] = {verdict, now + kRemember};
}

void Memory::Forget(const std::string& address) {
  const std::lock_guard lock(mutex_);
  entries_.erase(address);
}

void Memory::ForgetProofs() {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const auto& each) { return each.second.verdict.device != nullptr; });
}

}  // namespace verbena::connect
