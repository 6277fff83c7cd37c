// SPDX-License-Identifier: Apache-2.0
// An opened device: what inline functions of <infiniband/verbs.h> call through, and the queue of
// asynchronous events.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>

#include "dropin/device.h"
#include "dropin/inbox.h"
#include "dropin/process.h"

namespace verbena::dropin {

class Context final : public verbs_context {
 public:
  static Context* Of(ibv_context* context) {
    return static_cast<Context*>(reinterpret_cast<verbs_context*>(
        reinterpret_cast<std::byte*>(context) - offsetof(verbs_context, context)));
  }
  // Null, with errno set.
  static Context* Open(Device* device);

  Context(Process* process, Device* device);
  ~Context();

  Process& process() const { return *process_; }
  Device& device() const { return *device_; }
  Inbox<ibv_async_event>& events() { return events_; }

  // In a child after fork: everything answers EIO from here on.
  void Disable();
  bool disabled() const { return disabled_; }

 private:
  Process* const process_;
  Device* const device_;
  bool disabled_ = false;
  Inbox<ibv_async_event> events_;
};

}  // namespace verbena::dropin
