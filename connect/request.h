// SPDX-License-Identifier: Apache-2.0
// A provider's connection request, with the choice made known and counted.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "connect/core.h"
#include "transport/provider.h"

namespace verbena::connect {

class Request final : public provider::ConnectionRequest {
 public:
  Request(Core* core, std::unique_ptr<provider::ConnectionRequest> request)
      : core_(*core), request_(std::move(request)) {}

  absl::Status Close() override { return request_->Close(); }
  provider::Device* device() const override { return request_->device(); }
  const ConnectionInfo& info() const override { return request_->info(); }
  const std::string& private_data() const override { return request_->private_data(); }
  void Announce(const provider::Selection& selection) override { request_->Announce(selection); }
  absl::Status Accept(provider::QueuePair& qp, const AcceptParameters& parameters) override;
  absl::Status Reject(const std::string& private_data) override {
    return request_->Reject(private_data);
  }

 private:
  Core& core_;
  const std::unique_ptr<provider::ConnectionRequest> request_;
};

}  // namespace verbena::connect
