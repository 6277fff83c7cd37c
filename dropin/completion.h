// SPDX-License-Identifier: Apache-2.0
// Completion queues and channels.
#pragma once

#include <infiniband/verbs.h>
#include <sys/socket.h>

#include <memory>
#include <mutex>

#include "dropin/acknowledged.h"
#include "dropin/context.h"
#include "dropin/device.h"
#include "fallback/completion_channel.h"
#include "transport/completion_queue.h"

namespace verbena::dropin {

class CompletionChannel final : public ibv_comp_channel {
 public:
  static CompletionChannel* Of(ibv_comp_channel* c) { return static_cast<CompletionChannel*>(c); }
  // Null, with errno set.
  static CompletionChannel* Create(ibv_context* context);

  verbena::CompletionChannel* handle() { return &handle_; }
  // False with errno: EAGAIN of a non-blocking descriptor, EINTR.
  bool Take(CqEvent* event);

 private:
  CompletionChannel(ibv_context* context, std::unique_ptr<fallback::CompletionChannel> channel);

  const HeldContext held_;
  fallback::CompletionChannel* const channel_;
  verbena::CompletionChannel handle_;
};

// Begins with an ibv_cq, as an ibv_cq_ex does.
class CompletionQueue final : public ibv_cq_ex {
 public:
  static CompletionQueue* Of(ibv_cq* cq) {
    return static_cast<CompletionQueue*>(reinterpret_cast<ibv_cq_ex*>(cq));
  }
  // Null, with errno set.
  static CompletionQueue* Create(ibv_context* context, uint32_t entries, void* cq_context,
                                 ibv_comp_channel* channel);
  static ibv_cq_ex* CreateExtended(ibv_context* context, ibv_cq_init_attr_ex* attr);
  static int Moderate(ibv_cq* cq, ibv_modify_cq_attr* attr);

  int Resize(uint32_t entries);
  int Destroy();
  void OnError();  // it overflowed

  provider::CompletionQueue& queue() { return *queue_; }
  verbena::CompletionQueue* handle_of() { return &handle_; }
  ibv_cq* cq() { return reinterpret_cast<ibv_cq*>(static_cast<ibv_cq_ex*>(this)); }
  Acknowledged& events() { return events_; }
  Acknowledged& async_events() { return async_events_; }

  // Polling as ibv_cq_ex does: what is at the front, and when it was taken. From StartPoll to
  // EndPoll it is one thread's.
  static int StartPoll(ibv_cq_ex* cq, ibv_poll_cq_attr* attr);
  static int NextPoll(ibv_cq_ex* cq);
  static void EndPoll(ibv_cq_ex*);
  const WorkCompletion& front() const { return front_; }
  uint64_t taken_at() const { return taken_at_; }
  // The service level of a datagram. RoCE has none, and devices tell the packet's layer 3 in its
  // place (IBTA A17.4.5.1: the completion has it; mlx5: 8 for UDP, 1 IPv6, 2 IPv4). UCX looks there
  // for the length of the address in the GRH.
  uint8_t SlOf(const WorkCompletion& completion) const {
    return completion.has_grh ? packet_type_ : 0;
  }

 private:
  explicit CompletionQueue(ibv_context* context)
      : ibv_cq_ex{},
        held_(context),
        packet_type_(Context::Of(context)->device().address().family() == AF_INET ? 8 | 2 : 8 | 1) {
    this->context = context;
  }
  void SetReaders();

  const HeldContext held_;
  const uint8_t packet_type_;
  verbena::CompletionQueue handle_;
  provider::CompletionQueue* queue_ = nullptr;
  Acknowledged events_;
  Acknowledged async_events_;
  bool single_threaded_ = false;  // the program says so
  std::mutex polling_;
  WorkCompletion front_;
  uint64_t taken_at_ = 0;
};

}  // namespace verbena::dropin
