// SPDX-License-Identifier: Apache-2.0
// An opened device: what inline functions of <infiniband/verbs.h> call through, and the queue of
// asynchronous events.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cstddef>

#include "dropin/acknowledged.h"
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

  Process& process() const { return *process_; }
  Device& device() const { return *device_; }
  Inbox<ibv_async_event>& events() { return events_; }

  // What a program closes with objects open stays for these, as the service may tell it of them.
  void Hold() { uses_.fetch_add(1, std::memory_order_relaxed); }
  void Release();

  // In a child after fork: everything answers EIO from here on.
  void Disable();
  bool disabled() const { return disabled_; }

 private:
  ~Context();

  Process* const process_;
  Device* const device_;
  std::atomic<uint32_t> uses_{1};  // the program's, and one for each HeldContext
  bool disabled_ = false;
  Inbox<ibv_async_event> events_;
};

// Of the object that `event` is of; null: of the device.
Acknowledged* EventsOf(const ibv_async_event& event);

// In each object that is made from a context. What is made from such an object ends before it.
class HeldContext {
 public:
  explicit HeldContext(ibv_context* context) : context_(Context::Of(context)) { context_->Hold(); }
  ~HeldContext() { context_->Release(); }
  HeldContext(const HeldContext&) = delete;
  HeldContext& operator=(const HeldContext&) = delete;

 private:
  Context* const context_;
};

}  // namespace verbena::dropin
