// SPDX-License-Identifier: Apache-2.0
// The one device of the fallback: "tcp". Owns the key table, the service, and the lists by which
// objects find each other. Everything made from it counts as a child.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "fallback/engine/hardships.h"
#include "fallback/engine/key_table.h"
#include "fallback/hub.h"
#include "fallback/meeting.h"
#include "transport/address.h"
#include "transport/checks.h"
#include "transport/provider.h"

namespace verbena::fallback {

class HostTimer;
class Driven;

using provider::Children;

inline absl::Status CheckLimit(const char* what, uint64_t asked, uint64_t limit) {
  return provider::CheckLimit(what, asked, limit, "tcp");
}

class Device final : public provider::Device {
 public:
  Device(provider::Context* context, io::World* world, io::Address from, const DeviceInfo& info,
         const engine::Hardships& hardships);
  ~Device() override;

  provider::Context* owner() const override { return context_; }

  const DeviceInfo& info() const override { return info_; }
  DeviceAttributes attributes() const override { return Attributes(); }
  Capabilities capabilities() const override;
  DeviceCounters counters() const override;
  absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> AllocateProtectionDomain() override;
  absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CreateCompletionChannel() override;
  absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CreateCompletionQueue(
      const CqOptions& options) override;

  static DeviceAttributes Attributes();
  static DeviceInfo Info();

  Hub& hub() { return hub_; }
  const Hub& hub() const { return hub_; }
  engine::KeyTable& keys() { return keys_; }
  Children& children() { return children_; }
  const Children& children() const { return children_; }
  Meeting& meeting() { return meeting_; }
  const io::Address& from() const { return from_; }
  Ip OwnIp() const { return from_.empty() || from_.is_any() ? Ip{} : from_.bytes(); }
  const engine::Hardships& hardships() const { return hardships_; }
  std::vector<io::Address> Addresses();  // at which peers reach it

  // Events of `object`; wakes whoever waits for them.
  void SetHost(provider::Host* host);
  void Push(const void* object, Event event);
  void Forget(const void* object);
  void Changed();           // a listener has a request
  void SetTimer(Nanos at);  // Host::OnTimer then, or sooner

  void Register(Driven* qp);
  void Unregister(Driven* qp);
  uint32_t NewNumber() { return next_number_.fetch_add(1, std::memory_order_relaxed); }
  uint32_t NewDomain() { return next_domain_.fetch_add(1, std::memory_order_relaxed); }

  // Returns when every drive that was under way when it was called has ended: after a key was
  // killed, nothing uses its memory any more.
  void WaitForDrives();

  struct Counts {
    std::atomic<uint64_t> regions{0}, windows{0}, registered_bytes{0}, completion_queues{0},
        shared_queues{0}, connects{0}, accepts{0}, rejects{0}, handshake_failures{0};
  };
  Counts& counts() { return counts_; }

 private:
  provider::Context* const context_;
  const DeviceInfo info_;
  const io::Address from_;
  const engine::Hardships hardships_;
  engine::KeyTable keys_;
  Hub hub_;
  Meeting meeting_;
  Children children_;
  provider::Host* host_ = nullptr;
  std::unique_ptr<HostTimer> timer_;
  std::atomic<uint32_t> next_number_{1};
  std::atomic<uint32_t> next_domain_{1};
  mutable std::mutex mutex_;
  absl::flat_hash_set<Driven*> queue_pairs_;
  Counts counts_;
};

}  // namespace verbena::fallback
