// SPDX-License-Identifier: Apache-2.0
// A context made of several. Objects are the providers' own: nothing stands between a program and
// its queue pair. Selection happens in Resolve and Connect, on the caller's thread, and for
// listeners on the base's service (OnTimer), so that an application that sleeps is selected as
// well.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "connect/core.h"
#include "connect/rendezvous.h"
#include "transport/events.h"
#include "transport/provider.h"

namespace verbena::connect {

class Listener;

class Context final : public provider::Context, public provider::Host {
 public:
  Context(std::unique_ptr<provider::Context> base,
          std::vector<std::unique_ptr<provider::Context>> rdma, const Settings& settings);
  ~Context() override;

  // provider::Context
  absl::Status Close() override;
  absl::Status CheckClosable() const override;
  std::vector<provider::Device*> devices() const override;
  absl::StatusOr<std::unique_ptr<provider::Listener>> Listen(const std::string& address,
                                                             const ListenOptions& options) override;
  absl::StatusOr<std::unique_ptr<provider::Path>> Resolve(const std::string& address,
                                                          const ResolveOptions& options) override;
  void SetHost(provider::Host* host) override { host_ = host; }
  Contact contact() const override;
  bool Await(absl::FunctionRef<bool()> ready, absl::Duration timeout) override {
    return base_->Await(ready, timeout);
  }
  void Wake() override { base_->Wake(); }
  absl::Duration Now() const override { return base_->Now(); }
  ContextCounters counters() const override { return core_.counters(); }

  // provider::Host
  void Push(const void* object, Event event) override;
  void Forget(const void* object) override;
  void Changed() override { base_->SetTimer(absl::ZeroDuration()); }
  void OnTimer() override;

  // For its listeners.
  void* tag() { return this; }
  void Add(Listener* listener);
  void Remove(Listener* listener);

 private:
  // Nothing, or that RDMA is required and why there is none.
  absl::Status Insist(Rdma mode, const std::string& what,
                      const std::vector<Candidate>& losers) const;

  provider::Host* host_ = nullptr;
  const std::unique_ptr<provider::Context> base_;
  const std::vector<std::unique_ptr<provider::Context>> rdma_;
  Core core_;
  Rendezvous rendezvous_;
  std::mutex mutex_;  // the listeners, and what each of them does on the service
  std::vector<Listener*> listeners_;
};

}  // namespace verbena::connect
