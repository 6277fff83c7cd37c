// SPDX-License-Identifier: Apache-2.0
#include "dropin/context.h"

#include <cstring>
#include <new>

#include "dropin/attributes.h"
#include "dropin/completion.h"
#include "dropin/datapath.h"
#include "dropin/errors.h"
#include "dropin/memory.h"
#include "dropin/memory_window.h"
#include "dropin/queue_pair.h"
#include "dropin/shared_receive_queue.h"
#include "dropin/versions.h"

namespace verbena::dropin {
namespace {

int DeadPoll(ibv_cq*, int, ibv_wc*) { return -EIO; }
int DeadNotify(ibv_cq*, int) { return EIO; }
ibv_mw* DeadWindow(ibv_pd*, ibv_mw_type) { return Fail<ibv_mw>(EIO); }
int DeadFree(ibv_mw*) { return EIO; }
int DeadBind(ibv_qp*, ibv_mw*, ibv_mw_bind*) { return EIO; }
template <typename Object, typename Wr>
int DeadPost(Object*, Wr* wr, Wr** bad) {
  *bad = wr;
  return EIO;
}

}  // namespace

Context* Context::Open(Device* device) {
  Process* const process = Process::Get();
  if (process == nullptr) return nullptr;
  auto* const context = new Context(process, device);
  if (context->events_.fd() >= 0) return context;
  context->Release();
  return Fail<Context>(EMFILE);
}

Context::Context(Process* process, Device* device)
    : verbs_context{}, process_(process), device_(device) {
  sz = sizeof(verbs_context);
  query_port = QueryPort;
  query_device_ex = QueryDeviceEx;
  query_rt_values = QueryRealTime;
  create_cq_ex = CompletionQueue::CreateExtended;
  modify_cq = CompletionQueue::Moderate;
  create_qp_ex = QueuePair::CreateExtended;
  create_srq_ex = SharedReceiveQueue::CreateExtended;
  get_srq_num = SharedReceiveQueue::Number;
  alloc_null_mr = MemoryRegion::Null;
  context.device = device;
  context.cmd_fd = -1;
  context.async_fd = events_.fd();
  context.num_comp_vectors = 1;
  context.abi_compat = __VERBS_ABI_IS_EXTENDED;
  pthread_mutex_init(&context.mutex, nullptr);
  ibv_context_ops& ops = context.ops;
  ops.poll_cq = PollCq;
  ops.req_notify_cq = RequestNotify;
  ops.post_send = PostSend;
  ops.post_recv = PostReceive;
  ops.post_srq_recv = PostSharedReceive;
  ops.alloc_mw = MemoryWindow::Allocate;
  ops.dealloc_mw = MemoryWindow::Free;
  ops.bind_mw = MemoryWindow::Bind;
  process_->Add(this);
}

Context::~Context() { process_->Remove(this); }

void Context::Release() {
  if (uses_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void Context::Disable() {
  disabled_ = true;
  ibv_context_ops& ops = context.ops;
  ops.poll_cq = DeadPoll;
  ops.req_notify_cq = DeadNotify;
  ops.post_send = DeadPost<ibv_qp, ibv_send_wr>;
  ops.post_recv = DeadPost<ibv_qp, ibv_recv_wr>;
  ops.post_srq_recv = DeadPost<ibv_srq, ibv_recv_wr>;
  ops.alloc_mw = DeadWindow;
  ops.dealloc_mw = DeadFree;
  ops.bind_mw = DeadBind;
}

Acknowledged* EventsOf(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_CQ_ERR:
      return &CompletionQueue::Of(event.element.cq)->async_events();
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_SRQ_LIMIT_REACHED:
      return &SharedReceiveQueue::Of(event.element.srq)->events();
    case IBV_EVENT_PORT_ACTIVE:
      return nullptr;
    default:
      return &QueuePair::Of(event.element.qp)->events();
  }
}

}  // namespace verbena::dropin

using verbena::dropin::Acknowledged;
using verbena::dropin::Context;
using verbena::dropin::Device;
using verbena::dropin::EventsOf;

extern "C" {

ibv_context* ibv_open_device(ibv_device* device) {
  Context* const context = Context::Open(Device::Of(device));
  return context == nullptr ? nullptr : &context->context;
}

// The kernel takes along what is open; here it stays until the process ends.
int ibv_close_device(ibv_context* context) {
  if (!Context::Of(context)->disabled()) Context::Of(context)->Release();
  return 0;
}

int ibv_get_async_event(ibv_context* context, ibv_async_event* event) {
  if (Context::Of(context)->disabled()) return verbena::dropin::FailWith(EIO);
  const auto count = [](const ibv_async_event& e) {
    if (Acknowledged* const events = EventsOf(e)) events->Taken();
  };
  return Context::Of(context)->events().Take(event, count) ? 0 : -1;
}

void ibv_ack_async_event(ibv_async_event* event) {
  if (Acknowledged* const events = EventsOf(*event)) events->Acknowledge();
}

}  // extern "C"

USUAL_1_1(ibv_ack_async_event);
USUAL_1_1(ibv_close_device);
USUAL_1_1(ibv_get_async_event);
USUAL_1_1(ibv_open_device);
