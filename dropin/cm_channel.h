// SPDX-License-Identifier: Apache-2.0
// Event channels of rdma_cm, and their events.
#pragma once

#include <rdma/rdma_cma.h>

#include <string>

#include "dropin/acknowledged.h"
#include "dropin/inbox.h"
#include "dropin/process.h"

namespace verbena::dropin {

class ConnectionId;

// Freed when it is acknowledged.
struct CmEvent final : rdma_cm_event {
  CmEvent(rdma_cm_id* id, rdma_cm_event_type type, int status) : rdma_cm_event{} {
    this->id = id;
    event = type;
    this->status = status;
  }
  void SetPrivateData(std::string data) {
    private_data = std::move(data);
    param.conn.private_data = private_data.empty() ? nullptr : private_data.data();
    param.conn.private_data_len = static_cast<uint8_t>(private_data.size());
  }

  std::string private_data;
  ConnectionId* whose = nullptr;  // waits for it to be acknowledged, once it was taken
};

class EventChannel final : public rdma_event_channel {
 public:
  static EventChannel* Of(rdma_event_channel* c) { return static_cast<EventChannel*>(c); }
  explicit EventChannel(Process* process) : rdma_event_channel{}, process_(process) {
    fd = events.fd();
  }
  ~EventChannel() {
    events.Drop([](CmEvent* e) {
      delete e;
      return true;
    });
  }
  bool inherited() const { return process_->inherited(); }

  Inbox<CmEvent*> events;

 private:
  Process* const process_;
};

rdma_event_channel* CreateEventChannel();
void DestroyEventChannel(rdma_event_channel* channel);
int GetCmEvent(rdma_event_channel* channel, rdma_cm_event** event);
int AckCmEvent(rdma_cm_event* event);

}  // namespace verbena::dropin
