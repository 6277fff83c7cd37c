// SPDX-License-Identifier: Apache-2.0
#include "dropin/cm_id.h"

#include "dropin/errors.h"

namespace verbena::dropin {
namespace {

int ErrnoOfEvent(const rdma_cm_event& event) {
  switch (event.event) {
    case RDMA_CM_EVENT_REJECTED:
      return ECONNREFUSED;
    default:
      return event.status < 0 ? -event.status : ECONNABORTED;
  }
}

}  // namespace

Context* ManagerContext(Device* device) {
  ManagerState& state = ManagerState::Get();
  std::lock_guard lock(state.opening);
  ManagerState::Opened& opened = state.opened[device];
  if (opened.context == nullptr) opened.context = Context::Open(device);
  return opened.context;
}

ibv_pd* ManagerDomain(Context* context) {
  ManagerState& state = ManagerState::Get();
  std::lock_guard lock(state.opening);
  ManagerState::Opened& opened = state.opened[&context->device()];
  if (opened.domain == nullptr) opened.domain = ibv_alloc_pd(&context->context);
  return opened.domain;
}

ConnectionId::ConnectionId(Process* process, rdma_event_channel* channel, void* context,
                           rdma_port_space ps)
    : rdma_cm_id{}, process_(process) {
  if (channel == nullptr) own_channel_ = std::make_unique<EventChannel>(process);
  this->channel = channel != nullptr ? channel : own_channel_.get();
  this->context = context;
  this->ps = ps;
  qp_type = ps == RDMA_PS_UDP ? IBV_QPT_UD : IBV_QPT_RC;
}

ConnectionId::~ConnectionId() = default;

void ConnectionId::Push(rdma_cm_event_type type, int status, std::string private_data) {
  auto* const e = new CmEvent(this, type, status);
  if (type == RDMA_CM_EVENT_ESTABLISHED || type == RDMA_CM_EVENT_CONNECT_RESPONSE) {
    e->param.conn = agreed_;
  }
  e->SetPrivateData(std::move(private_data));
  std::lock_guard lock(ManagerMutex());
  EventChannel::Of(channel)->events.Push(e);
}

void ConnectionId::ForgetEvent() {
  if (event != nullptr) AckCmEvent(event);
  event = nullptr;
}

int ConnectionId::Complete(rdma_cm_event_type expected) {
  if (!waits()) return 0;
  ForgetEvent();
  if (GetCmEvent(channel, &event) != 0) return errno;
  return event->event == expected ? 0 : ErrnoOfEvent(*event);
}

// Its events that nobody took move along, and so do requests to a listener. From here on its calls
// wait for their event if, and only if, it has no channel of the program's.
int ConnectionId::Migrate(rdma_event_channel* to) {
  if (to == nullptr && waits()) return EINVAL;
  if (to != nullptr && EventChannel::Of(to)->inherited()) return EIO;
  std::unique_ptr<EventChannel> own;
  if (to == nullptr) {
    own = std::make_unique<EventChannel>(process_);
    if (own->fd < 0) return ENOMEM;
    to = own.get();
  }
  if (waits()) ForgetEvent();  // the program has it no longer, as its channel
  std::lock_guard lock(ManagerMutex());
  EventChannel* const from = EventChannel::Of(channel);
  EventChannel* const target = EventChannel::Of(to);
  if (from == target) return 0;
  from->events.Drop([&](CmEvent* e) {
    if (e->id != this && e->listen_id != this) return false;
    if (e->listen_id == this) e->id->channel = target;
    target->events.Push(e);
    return true;
  });
  channel = target;
  own_channel_.swap(own);  // the former one ends behind the lock
  return 0;
}

int ConnectionId::Destroy() {
  Detach();
  StopListening();
  StopDatagrams();
  if (request_ != nullptr) (void)request_->Close();
  ForgetEvent();
  {
    std::lock_guard lock(ManagerMutex());
    EventChannel::Of(channel)->events.Drop([this](CmEvent* e) {
      if (e->id != this && e->listen_id != this) return false;
      if (e->listen_id == this) {  // a request that nobody will answer
        ConnectionId* const asked = Of(e->id);
        if (asked->request_ != nullptr) (void)asked->request_->Close();
        asked->StopDatagrams();
        delete asked;
      }
      delete e;
      return true;
    });
  }
  events_.WaitForAll();
  delete this;
  return 0;
}

int ConnectionId::SetOption(int level, int name, const void* value, size_t length) {
  if (level == RDMA_OPTION_ID && length >= 1) {
    const auto byte = *static_cast<const uint8_t*>(value);
    switch (name) {
      case RDMA_OPTION_ID_TOS:
        traffic_class_ = byte;
        return 0;
      case RDMA_OPTION_ID_REUSEADDR:
        return 0;
      case RDMA_OPTION_ID_AFONLY:
        one_family_ = byte != 0;
        return 0;
      case RDMA_OPTION_ID_ACK_TIMEOUT:
        timeout_ = byte;
        return 0;
      default:
        break;
    }
  }
  return ENOSYS;
}

}  // namespace verbena::dropin
