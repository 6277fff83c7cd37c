// SPDX-License-Identifier: Apache-2.0
// What a process has one of: the fallback's context, with its service thread. Opened when it is
// first needed, never closed; a child after fork has none, and opens its own.
#pragma once

#include <memory>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "dropin/numbers.h"
#include "fallback/device.h"
#include "transport/provider.h"

namespace verbena::dropin {

class Context;
class QueuePair;

class Process final : public provider::Host {
 public:
  // Null, with errno set.
  static Process* Get();

  explicit Process(std::unique_ptr<provider::Context> context);

  fallback::Device& device() { return device_; }
  provider::Context& context() { return *context_; }
  Numbers& numbers() { return numbers_; }

  void Add(Context* context);
  void Remove(Context* context);
  void Add(QueuePair* qp);
  void Remove(QueuePair* qp);
  // This process is a child of the one whose it is: what belongs to it may not be touched.
  bool inherited() const { return inherited_; }
  QueuePair* Find(uint32_t number);  // null: none of that number
  // If there is one, which is there until `f` has returned.
  void With(uint32_t number, absl::FunctionRef<void(QueuePair&)> f);

  // provider::Host
  void Push(const void* object, Event event) override;
  void Forget(const void*) override {}  // what waits is in the context's inbox
  void Changed() override;
  void OnTimer() override;

 private:
  static void BeforeFork();
  static void InParent();
  static void InChild();
  static void AtExit();

  const std::unique_ptr<provider::Context> context_;
  fallback::Device& device_;
  Numbers numbers_;
  bool inherited_ = false;
  std::mutex mutex_;
  absl::flat_hash_set<Context*> contexts_;
  absl::flat_hash_map<uint32_t, QueuePair*> queue_pairs_;
};

}  // namespace verbena::dropin
