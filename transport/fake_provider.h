// SPDX-License-Identifier: Apache-2.0
// A provider that does nothing but what a test writes into its public members. Time is simulated:
// each turn of Await() takes a millisecond and runs the context's next step, so nothing sleeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport/provider.h"

namespace verbena::fake {

// Counts what became of objects; outlives them.
struct Journal {
  int closed = 0;
  int destroyed = 0;
};

// Close() answers `refusal`.
template <typename Interface>
class Object : public Interface {
 public:
  ~Object() override {
    if (journal != nullptr) ++journal->destroyed;
  }
  absl::Status Close() override {
    if (refusal.ok() && journal != nullptr) ++journal->closed;
    return refusal;
  }

  absl::Status refusal;
  Journal* journal = nullptr;
};

class MemoryWindow : public Object<provider::MemoryWindow> {
 public:
  RemoteBuffer remote() const override { return {1, 2, 3}; }
  WindowCounters counters() const override { return {}; }
};

class CompletionChannel : public Object<provider::CompletionChannel> {
 public:
  int fd() const override { return -1; }
  ChannelCounters counters() const override { return {}; }
  bool TryNext(CqEvent* event) override {
    if (events.empty()) return false;
    *event = events.front();
    events.pop_front();
    return true;
  }
  bool Await(absl::Duration) override {
    if (on_await) on_await();
    return !events.empty();
  }

  std::deque<CqEvent> events;
  std::function<void()> on_await;
};

class CompletionQueue : public Object<provider::CompletionQueue> {
 public:
  size_t Poll(std::span<WorkCompletion> out) override {
    size_t n = 0;
    for (; n < out.size() && !ready.empty(); ++n) {
      out[n] = ready.front();
      ready.pop_front();
    }
    return n;
  }
  absl::Status RequestNotify(Notify) override { return absl::OkStatus(); }
  absl::Status Resize(uint32_t) override { return absl::OkStatus(); }
  uint32_t entries() const override { return 16; }
  CqCounters counters() const override { return {}; }
  bool Await(absl::Duration timeout) override {
    waits.push_back(timeout);
    if (on_await) on_await();
    return !ready.empty() || !out_of_time;
  }

  std::deque<WorkCompletion> ready;
  std::vector<absl::Duration> waits;
  std::function<void()> on_await;
  bool out_of_time = false;  // what an Await without completions answers
};

class QueuePair : public Object<provider::QueuePair> {
 public:
  PostResult PostSend(std::span<const SendWr> requests) override { return {requests.size()}; }
  PostResult PostReceive(std::span<const ReceiveWr> requests) override { return {requests.size()}; }
  absl::Status Modify(const QpModify&) override { return absl::OkStatus(); }
  QpAttributes Query() const override { return attributes; }
  Capabilities capabilities() const override { return {}; }
  absl::Status Disconnect() override {
    attributes.state = QpState::kErr;
    return absl::OkStatus();
  }
  absl::Status cause() const override { return why; }
  ConnectOutcome outcome() const override { return latest; }
  ConnectionInfo connection() const override { return {}; }
  QpCounters counters() const override { return {}; }
  absl::StatusOr<Contact> contact() override {
    return Contact{.queue_pair = true, .ways = {{.device = "fake"}}};
  }
  absl::Status Connect(const Contact&, const ConnectParameters&) override {
    return absl::OkStatus();
  }

  QpAttributes attributes{.state = QpState::kInit, .qp_number = 0x12};
  absl::Status why;
  ConnectOutcome latest;
};

class ProtectionDomain : public Object<provider::ProtectionDomain> {
 public:
  DomainCounters counters() const override { return {}; }
  absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> Register(
      std::span<std::byte>, Access, const RegisterOptions&) override {
    return absl::InvalidArgumentError("register: the span is empty");
  }
  absl::StatusOr<std::unique_ptr<provider::MemoryWindow>> AllocateWindow() override {
    return std::make_unique<MemoryWindow>();
  }
  absl::StatusOr<std::unique_ptr<provider::QueuePair>> CreateQueuePair(
      const QueuePairOptions&) override {
    return std::make_unique<QueuePair>();
  }
  absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> CreateSharedReceiveQueue(
      const SrqOptions&) override {
    return absl::UnimplementedError("fake: no shared receive queues");
  }
};

class Device : public provider::Device {
 public:
  Device(provider::Context* context, std::string name)
      : Device(context, DeviceInfo{.name = std::move(name)}) {}
  Device(provider::Context* context, DeviceInfo info) : context_(context), info_(std::move(info)) {}
  provider::Context* owner() const override { return context_; }
  const DeviceInfo& info() const override { return info_; }
  DeviceAttributes attributes() const override { return {}; }
  Capabilities capabilities() const override { return {}; }
  DeviceCounters counters() const override { return {}; }
  absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> AllocateProtectionDomain() override {
    return std::make_unique<ProtectionDomain>();
  }
  absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CreateCompletionChannel() override {
    return std::make_unique<CompletionChannel>();
  }
  absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CreateCompletionQueue(
      const CqOptions&) override {
    return std::make_unique<CompletionQueue>();
  }

 private:
  provider::Context* const context_;
  const DeviceInfo info_;
};

class ConnectionRequest : public Object<provider::ConnectionRequest> {
 public:
  explicit ConnectionRequest(provider::Device* device) : device_(device) {}
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  const std::string& private_data() const override { return data; }
  void Announce(const provider::Selection& selection) override {
    info_.candidates = selection.candidates;
  }
  absl::Status Accept(provider::QueuePair&, const AcceptParameters&) override {
    return absl::OkStatus();
  }
  absl::Status Reject(const std::string&) override { return absl::OkStatus(); }

  std::string data;

 private:
  provider::Device* device_;
  ConnectionInfo info_{.local = "[::1]:7471", .peer = "[::1]:51022"};
};

class Listener : public Object<provider::Listener> {
 public:
  std::string address() const override { return bound; }
  int fd() const override { return -1; }
  std::unique_ptr<provider::ConnectionRequest> TryNext() override { return std::move(waiting); }
  ListenerCounters counters() const override { return {}; }

  std::string bound = "[::]:7471";
  std::unique_ptr<provider::ConnectionRequest> waiting;
};

class Path : public Object<provider::Path> {
 public:
  explicit Path(provider::Device* device) : device_(device) {}
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  void Announce(const provider::Selection& selection) override {
    info_.candidates = selection.candidates;
  }
  absl::Status Connect(provider::QueuePair&, const ConnectParameters&) override { return start; }

  absl::Status start;

 private:
  provider::Device* device_;
  ConnectionInfo info_{.local = "[::1]:51022", .peer = "[::1]:7471"};
};

class Context : public Object<provider::Context> {
 public:
  std::vector<provider::Device*> devices() const override { return {&device}; }
  absl::StatusOr<std::unique_ptr<provider::Listener>> Listen(const std::string&,
                                                             const ListenOptions&) override {
    if (next_listener == nullptr) return absl::UnavailableError("listen: the address is in use");
    return std::move(next_listener);
  }
  absl::StatusOr<std::unique_ptr<provider::Path>> Resolve(const std::string&,
                                                          const ResolveOptions&) override {
    if (next_path == nullptr) return absl::NotFoundError("resolve: no such host");
    return std::move(next_path);
  }
  void SetHost(provider::Host* to) override { host = to; }
  bool Await(absl::FunctionRef<bool()> ready, absl::Duration timeout) override {
    awaited = timeout;
    for (absl::Duration spent; !ready(); spent += absl::Milliseconds(1)) {
      if (spent >= timeout) return false;
      if (steps.empty()) continue;
      steps.front()();
      steps.pop_front();
    }
    return true;
  }

  void Wake() override {}
  absl::Status CheckClosable() const override { return refusal; }
  Contact contact() const override { return {.ways = {{.device = "fake"}}}; }

  mutable Device device{this, "fake"};
  provider::Host* host = nullptr;
  absl::Duration awaited;                   // the latest Await's
  std::deque<std::function<void()>> steps;  // one for each turn of Await
  std::unique_ptr<Listener> next_listener;
  std::unique_ptr<Path> next_path;
};

}  // namespace verbena::fake
