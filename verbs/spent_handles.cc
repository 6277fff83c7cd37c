// SPDX-License-Identifier: Apache-2.0
#include "verbs/spent_handles.h"

#include <utility>

#include "verbs/completion.h"

namespace verbena::verbs {

void SpentHandles::Join(const Ledger* sends, CompletionQueue* cq) {
  const std::lock_guard lock(mutex_);
  senders_.push_back({sends, cq});
}

void SpentHandles::Leave(const Ledger* sends) {
  const auto is_its = [sends](const auto& each) { return each.sends == sends; };
  const std::lock_guard lock(mutex_);
  std::erase_if(senders_, is_its);
  for (Spent& each : spent_) std::erase_if(each.awaits, is_its);
}

void SpentHandles::Add(ibv_ah* handle) {
  const std::lock_guard lock(mutex_);
  Spent spent{.handle = handle, .awaits = {}};
  for (const Sender& sender : senders_) {
    if (sender.sends->outstanding() > 0) {
      spent.awaits.push_back({sender.sends, sender.sends->posted()});
    }
  }
  spent_.push_back(std::move(spent));
  Sweep();
  if (spent_.size() < kMany) return;
  for (const Sender& sender : senders_) sender.cq->Pull();
  Sweep();
}

void SpentHandles::Sweep() {
  std::erase_if(spent_, [](Spent& each) {
    std::erase_if(each.awaits,
                  [](const Mark& mark) { return mark.sends->completed() >= mark.until; });
    if (!each.awaits.empty()) return false;
    Lib().destroy_ah(each.handle);
    return true;
  });
}

void SpentHandles::DestroyAll() {
  const std::lock_guard lock(mutex_);
  for (const Spent& each : spent_) Lib().destroy_ah(each.handle);
  spent_.clear();
}

}  // namespace verbena::verbs
