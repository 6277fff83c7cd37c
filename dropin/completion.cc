// SPDX-License-Identifier: Apache-2.0
#include "dropin/completion.h"

#include <fcntl.h>
#include <poll.h>

#include <atomic>

#include "dropin/attributes.h"
#include "dropin/context.h"
#include "dropin/datapath.h"
#include "dropin/errors.h"
#include "dropin/signals.h"
#include "dropin/versions.h"

namespace verbena::dropin {
namespace {

template <auto Value>
uint32_t Read(ibv_cq_ex* cq) {
  return Value(static_cast<CompletionQueue*>(cq)->front());
}

}  // namespace

CompletionChannel::CompletionChannel(ibv_context* context,
                                     std::unique_ptr<fallback::CompletionChannel> channel)
    : ibv_comp_channel{}, held_(context), channel_(channel.get()), handle_(std::move(channel)) {
  this->context = context;
  fd = handle_.fd();
}

CompletionChannel* CompletionChannel::Create(ibv_context* context) {
  // Counted before the queue may have left the channel: who destroys it waits for its events.
  constexpr auto kCount = [](void* queue) {
    static_cast<CompletionQueue*>(queue)->events().Taken();
  };
  auto channel =
      fallback::CompletionChannel::CreateExact(&Context::Of(context)->process().device(), kCount);
  if (!channel.ok()) return Fail<CompletionChannel>(EMFILE);
  return new CompletionChannel(context, *std::move(channel));
}

bool CompletionChannel::Take(CqEvent* event) {
  while (!channel_->TryNext(event)) {
    if ((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0) {
      errno = EAGAIN;
      return false;
    }
    pollfd wait{channel_->Attend(), POLLIN, 0};
    if (poll(&wait, 1, -1) < 0 && errno == EINTR && SignalsInterrupt()) {
      errno = EINTR;
      return false;
    }
  }
  return true;
}

CompletionQueue* CompletionQueue::Create(ibv_context* context, uint32_t entries, void* cq_context,
                                         ibv_comp_channel* channel) {
  if (Context::Of(context)->disabled()) return Fail<CompletionQueue>(EIO);
  auto* const made = new CompletionQueue(context);
  auto queue = Context::Of(context)->process().device().CreateCompletionQueue(
      {.entries = entries,
       .channel = channel == nullptr ? nullptr : CompletionChannel::Of(channel)->handle(),
       .context = made});
  if (!queue.ok()) {
    delete made;
    return Fail<CompletionQueue>(ErrnoOf(queue.status()));
  }
  made->handle_ = verbena::CompletionQueue(*std::move(queue));
  made->queue_ = made->handle_.impl();
  made->channel = channel;
  made->cq_context = cq_context;
  made->cqe = static_cast<int>(made->queue_->entries());
  pthread_mutex_init(&made->mutex, nullptr);
  pthread_cond_init(&made->cond, nullptr);
  made->SetReaders();
  if (channel != nullptr) ++std::atomic_ref(channel->refcnt);
  return made;
}

ibv_cq_ex* CompletionQueue::CreateExtended(ibv_context* context, ibv_cq_init_attr_ex* attr) {
  constexpr uint64_t kFlags = IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_IMM | IBV_WC_EX_WITH_QP_NUM |
                              IBV_WC_EX_WITH_SRC_QP | IBV_WC_EX_WITH_SLID | IBV_WC_EX_WITH_SL |
                              IBV_WC_EX_WITH_DLID_PATH_BITS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
                              IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK;
  constexpr uint32_t kMask = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
  if ((attr->comp_mask & ~kMask) != 0 || (attr->wc_flags & ~kFlags) != 0) {
    return Fail<ibv_cq_ex>(EOPNOTSUPP);
  }
  // An overrun is an error here, for who would ignore it too.
  const uint32_t flags = (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS) != 0 ? attr->flags : 0;
  if ((flags & ~uint32_t{IBV_CREATE_CQ_ATTR_SINGLE_THREADED}) != 0) {
    return Fail<ibv_cq_ex>(EOPNOTSUPP);
  }
  if (attr->cqe == 0 || attr->comp_vector >= static_cast<uint32_t>(context->num_comp_vectors)) {
    return Fail<ibv_cq_ex>(EINVAL);
  }
  CompletionQueue* const made = Create(context, attr->cqe, attr->cq_context, attr->channel);
  if (made != nullptr) made->single_threaded_ = flags != 0;
  return made;
}

// Moderation delays events to make fewer of them. Here each tells of all that is there anyway.
int CompletionQueue::Moderate(ibv_cq*, ibv_modify_cq_attr* attr) {
  return (attr->attr_mask & ~uint32_t{IBV_CQ_ATTR_MODERATE}) != 0 ? EINVAL : 0;
}

int CompletionQueue::Resize(uint32_t entries) {
  if (Context::Of(context)->disabled()) return EIO;
  const int error = ErrnoOf(queue_->Resize(entries));
  if (error == 0) cqe = static_cast<int>(queue_->entries());
  return error;
}

int CompletionQueue::Destroy() {
  if (Context::Of(context)->disabled()) return EIO;
  if (const absl::Status s = handle_.Close(); !s.ok()) return ErrnoOf(s);
  Context::Of(context)->events().Drop([this](const ibv_async_event& e) {
    return e.event_type == IBV_EVENT_CQ_ERR && e.element.cq == cq();
  });
  events_.WaitForAll();
  async_events_.WaitForAll();
  if (channel != nullptr) --std::atomic_ref(channel->refcnt);
  delete this;
  return 0;
}

void CompletionQueue::OnError() {
  ibv_async_event event{};
  event.event_type = IBV_EVENT_CQ_ERR;
  event.element.cq = cq();
  Context::Of(context)->events().Push(event);
}

void CompletionQueue::SetReaders() {
  start_poll = StartPoll;
  next_poll = NextPoll;
  end_poll = EndPoll;
  read_opcode = [](ibv_cq_ex* c) { return OpcodeOf(static_cast<CompletionQueue*>(c)->front()); };
  read_vendor_err = Read<[](const WorkCompletion& c) { return c.vendor_error; }>;
  read_byte_len = Read<[](const WorkCompletion& c) { return c.length; }>;
  read_imm_data = Read<[](const WorkCompletion& c) { return ImmediateOf(c); }>;
  read_qp_num = Read<[](const WorkCompletion& c) { return c.qp_number; }>;
  read_wc_flags = Read<[](const WorkCompletion& c) { return uint32_t{FlagsOf(c)}; }>;
  read_src_qp = Read<[](const WorkCompletion& c) { return c.source_qp; }>;
  read_slid = [](ibv_cq_ex*) { return uint32_t{0}; };
  read_sl = [](ibv_cq_ex* c) {
    auto* const queue = static_cast<CompletionQueue*>(c);
    return queue->SlOf(queue->front());
  };
  read_dlid_path_bits = [](ibv_cq_ex*) { return uint8_t{0}; };
  read_completion_ts = [](ibv_cq_ex* c) { return static_cast<CompletionQueue*>(c)->taken_at(); };
  read_completion_wallclock_ns = [](ibv_cq_ex*) {
    return static_cast<uint64_t>(absl::GetCurrentTimeNanos());
  };
}

int CompletionQueue::StartPoll(ibv_cq_ex* cq, ibv_poll_cq_attr* attr) {
  if (attr->comp_mask != 0) return EINVAL;
  if (Context::Of(cq->context)->disabled()) return EIO;
  auto* const queue = static_cast<CompletionQueue*>(cq);
  if (!queue->single_threaded_) queue->polling_.lock();
  const int error = NextPoll(cq);
  if (error != 0) EndPoll(cq);  // which the program does not call then
  return error;
}

int CompletionQueue::NextPoll(ibv_cq_ex* cq) {
  auto* const queue = static_cast<CompletionQueue*>(cq);
  if (queue->queue_->Poll({&queue->front_, 1}) == 0) return ENOENT;
  queue->taken_at_ = Timestamp();
  cq->status = StatusOf(queue->front_.status);
  cq->wr_id = queue->front_.id;
  return 0;
}

void CompletionQueue::EndPoll(ibv_cq_ex* cq) {
  auto* const queue = static_cast<CompletionQueue*>(cq);
  if (!queue->single_threaded_) queue->polling_.unlock();
}

}  // namespace verbena::dropin

using verbena::dropin::CompletionChannel;
using verbena::dropin::CompletionQueue;
using verbena::dropin::Context;
using verbena::dropin::ErrnoOf;
using verbena::dropin::Fail;

extern "C" {

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  if (Context::Of(context)->disabled()) return Fail<ibv_comp_channel>(EIO);
  return CompletionChannel::Create(context);
}

int ibv_destroy_comp_channel(ibv_comp_channel* channel) {
  if (Context::Of(channel->context)->disabled()) return EIO;
  auto* const mine = CompletionChannel::Of(channel);
  if (const absl::Status s = mine->handle()->Close(); !s.ok()) return ErrnoOf(s);
  delete mine;
  return 0;
}

ibv_cq* ibv_create_cq(ibv_context* context, int cqe, void* cq_context, ibv_comp_channel* channel,
                      int comp_vector) {
  if (cqe <= 0 || comp_vector < 0 || comp_vector >= context->num_comp_vectors) {
    return Fail<ibv_cq>(EINVAL);
  }
  CompletionQueue* const made =
      CompletionQueue::Create(context, static_cast<uint32_t>(cqe), cq_context, channel);
  return made == nullptr ? nullptr : made->cq();
}

int ibv_resize_cq(ibv_cq* cq, int cqe) {
  if (cqe <= 0) return EINVAL;
  return CompletionQueue::Of(cq)->Resize(static_cast<uint32_t>(cqe));
}

int ibv_destroy_cq(ibv_cq* cq) { return CompletionQueue::Of(cq)->Destroy(); }

int ibv_get_cq_event(ibv_comp_channel* channel, ibv_cq** cq, void** cq_context) {
  if (Context::Of(channel->context)->disabled()) return verbena::dropin::FailWith(EIO);
  verbena::CqEvent event;
  if (!CompletionChannel::Of(channel)->Take(&event)) return -1;
  auto* const queue = static_cast<CompletionQueue*>(event.context);
  *cq = queue->cq();
  *cq_context = queue->cq_context;
  return 0;
}

void ibv_ack_cq_events(ibv_cq* cq, unsigned int nevents) {
  CompletionQueue::Of(cq)->events().Acknowledge(nevents);
}

}  // extern "C"

USUAL_1_1(ibv_ack_cq_events);
USUAL_1_1(ibv_create_cq);
USUAL_1_1(ibv_destroy_cq);
USUAL_1_1(ibv_get_cq_event);
USUAL_1_1(ibv_resize_cq);
