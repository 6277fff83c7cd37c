// SPDX-License-Identifier: Apache-2.0
#include "dropin/cm_channel.h"

#include "dropin/cm_id.h"
#include "dropin/errors.h"

namespace verbena::dropin {

rdma_event_channel* CreateEventChannel() {
  Process* const process = Process::Get();
  if (process == nullptr) return nullptr;
  auto* const channel = new EventChannel(process);
  if (channel->fd >= 0) return channel;
  delete channel;
  return Fail<rdma_event_channel>(EMFILE);
}

// A thread of the program may be about to ask it for an event, and takes an error for the end of
// the world (rping does, at its end). So the latest ones stay, and such a thread sleeps.
void DestroyEventChannel(rdma_event_channel* channel) {
  constexpr size_t kStay = 16;
  EventChannel* oldest = nullptr;
  {
    std::lock_guard lock(ManagerMutex());
    std::deque<EventChannel*>& former = ManagerState::Get().former;
    former.push_back(EventChannel::Of(channel));
    if (former.size() > kStay) {
      oldest = former.front();
      former.pop_front();
    }
  }
  delete oldest;
}

int GetCmEvent(rdma_event_channel* channel, rdma_cm_event** event) {
  if (EventChannel::Of(channel)->inherited()) return FailWith(EIO);
  CmEvent* taken = nullptr;
  // Who destroys an id waits for its events; a request is still the listener's.
  const auto count = [](CmEvent* e) {
    e->whose = ConnectionId::Of(e->listen_id != nullptr ? e->listen_id : e->id);
    e->whose->events().Taken();
  };
  if (!EventChannel::Of(channel)->events.Take(&taken, count)) return -1;
  *event = taken;
  return 0;
}

int AckCmEvent(rdma_cm_event* event) {
  if (event == nullptr) return FailWith(EINVAL);
  auto* const mine = static_cast<CmEvent*>(event);
  ConnectionId* const whose = mine->whose;
  if (whose->inherited()) return FailWith(EIO);
  delete mine;
  whose->events().Acknowledge();
  return 0;
}

}  // namespace verbena::dropin
