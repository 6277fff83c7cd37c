// SPDX-License-Identifier: Apache-2.0
// What Resolve of a composed context hands out.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "connect/core.h"
#include "connect/rendezvous.h"
#include "transport/provider.h"

namespace verbena::connect {

// A provider's path straight to the listener, with the choice made known.
class StraightPath final : public provider::Path {
 public:
  StraightPath(Core* core, std::unique_ptr<provider::Path> path)
      : core_(*core), path_(std::move(path)) {}

  absl::Status Close() override { return path_->Close(); }
  provider::Device* device() const override { return path_->device(); }
  const ConnectionInfo& info() const override { return path_->info(); }
  void Announce(const provider::Selection& selection) override { path_->Announce(selection); }
  absl::Status Connect(provider::QueuePair& qp, const ConnectParameters& parameters) override;

 private:
  Core& core_;
  const std::unique_ptr<provider::Path> path_;
};

// On an RDMA device that is proven to reach the peer. Each Connect asks the peer anew for a port.
class RdmaPath final : public provider::Path {
 public:
  // `via`: the base's path to the listener, for rendezvous.
  RdmaPath(Core* core, Rendezvous* rendezvous, std::unique_ptr<provider::Path> via,
           const std::string& address, const Verdict& verdict, Rdma mode);

  absl::Status Close() override { return via_->Close(); }
  provider::Device* device() const override { return device_; }
  const ConnectionInfo& info() const override { return info_; }
  void Announce(const provider::Selection& selection) override {
    info_.candidates = selection.candidates;
  }
  absl::Status Connect(provider::QueuePair& qp, const ConnectParameters& parameters) override;

 private:
  Core& core_;
  Rendezvous& rendezvous_;
  const std::unique_ptr<provider::Path> via_;
  provider::Device* const device_;
  const uint8_t nth_;
  ConnectionInfo info_;
};

}  // namespace verbena::connect
