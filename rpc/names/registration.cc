// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/etcd.pb.h"
#include "rpc/names/etcd.h"
#include "rpc/names/gateway.h"

namespace verbena::rpc {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(3);
constexpr absl::Duration kPauseAfterFailure = absl::Milliseconds(300);
constexpr absl::Duration kRevokeTimeout = absl::Seconds(1);

}  // namespace

// A key under a lease.
class Registration::Lease {
 public:
  Lease(EtcdName name, const std::string& address, int64_t seconds)
      : name_(std::move(name)), address_(address), seconds_(seconds), gateway(name_.endpoints) {}

  absl::Status Register() {
    etcd::LeaseGrantRequest wish;
    wish.set_ttl(seconds_);
    etcd::LeaseGrantResponse lease;
    if (auto status = gateway.Call("/v3/lease/grant", wish, &lease, kTimeout); !status.ok()) {
      return status;
    }
    etcd::PutRequest put;
    put.set_key(name_.prefix + address_);
    put.set_value(address_);
    put.set_lease(lease.id());
    etcd::PutResponse done;
    const absl::Status status = gateway.Call("/v3/kv/put", put, &done, kTimeout);
    if (status.ok()) id_ = lease.id();
    return status;
  }

  // FailedPrecondition: etcd does not know the lease any more.
  absl::Status KeepAlive() {
    etcd::LeaseKeepAliveRequest request;
    request.set_id(id_);
    etcd::LeaseKeepAliveResponse response;
    auto status = gateway.Call("/v3/lease/keepalive", request, &response, kTimeout);
    if (status.ok() && response.result().ttl() <= 0) {
      id_ = 0;
      status = absl::FailedPreconditionError("etcd: the lease has run out");
    }
    return status;
  }

  void Revoke() const {
    if (id_ == 0) return;
    Gateway last(name_.endpoints);  // the other one was stopped
    etcd::LeaseRevokeRequest request;
    request.set_id(id_);
    etcd::LeaseRevokeResponse response;
    (void)last.Call("/v3/lease/revoke", request, &response, kRevokeTimeout);
  }

  bool exists() const { return id_ != 0; }
  absl::Duration third() const { return absl::Seconds(seconds_) / 3; }

 private:
  const EtcdName name_;
  const std::string address_;
  const int64_t seconds_;
  int64_t id_ = 0;

 public:
  Gateway gateway;
};

absl::StatusOr<std::unique_ptr<Registration>> Registration::Open(const std::string& name,
                                                                 const std::string& address,
                                                                 absl::Duration lifetime) {
  auto parsed = ParseEtcdName(name);
  if (!parsed.ok()) return parsed.status();
  if (address.empty() || lifetime < absl::Seconds(1)) {
    return absl::InvalidArgumentError(
        "etcd: a registration needs an address and a second at least");
  }
  return std::unique_ptr<Registration>(new Registration(std::make_unique<Lease>(
      *std::move(parsed), address, std::min<int64_t>(absl::ToInt64Seconds(lifetime), 86'400))));
}

Registration::Registration(std::unique_ptr<Lease> lease)
    : lease_(std::move(lease)), last_(absl::UnavailableError("etcd: not asked yet")) {
  thread_ = std::thread([this] { Run(); });
}

Registration::~Registration() {
  lease_->gateway.Stop();
  thread_.join();
  lease_->Revoke();
}

void Registration::Run() {
  while (!lease_->gateway.stopped()) {
    const absl::Status status = lease_->exists() ? lease_->KeepAlive() : lease_->Register();
    {
      const std::lock_guard lock(lock_);
      // While etcd cannot be reached the lease may well be alive.
      if (status.ok() || !lease_->exists()) registered_ = status.ok();
      last_ = status;
      changed_.notify_all();
    }
    if (absl::IsFailedPrecondition(status)) continue;  // again, at once
    lease_->gateway.Pause(status.ok() ? lease_->third()
                                      : std::min(kPauseAfterFailure, lease_->third()));
  }
}

absl::Status Registration::WaitUntilRegistered(absl::Duration timeout) {
  std::unique_lock lock(lock_);
  const auto most = absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24)));
  if (changed_.wait_for(lock, most, [this] { return registered_; })) return absl::OkStatus();
  return last_;
}

}  // namespace verbena::rpc
