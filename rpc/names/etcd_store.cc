// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <mutex>
#include <utility>

#include "proto/etcd.pb.h"
#include "rpc/names/etcd.h"
#include "rpc/names/follow.h"
#include "rpc/names/gateway.h"

namespace verbena::rpc {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(5);

class EtcdStore final : public KeyStore {
 public:
  explicit EtcdStore(std::vector<std::string> endpoints)
      : endpoints_(std::move(endpoints)), gateway_(endpoints_) {}

  absl::Status Put(const std::string& key, const std::string& value,
                   absl::Duration lifetime) override {
    const std::lock_guard lock(lock_);
    etcd::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    if (lifetime < absl::InfiniteDuration()) {
      etcd::LeaseGrantRequest wish;
      wish.set_ttl(std::max<int64_t>(absl::ToInt64Seconds(lifetime), 1));
      etcd::LeaseGrantResponse lease;
      if (auto status = gateway_.Call("/v3/lease/grant", wish, &lease, kTimeout); !status.ok()) {
        return status;
      }
      request.set_lease(lease.id());
    }
    etcd::PutResponse response;
    return gateway_.Call("/v3/kv/put", request, &response, kTimeout);
  }

  absl::StatusOr<std::optional<std::string>> Get(const std::string& key) override {
    auto found = Read(key, Keys::kOne);
    if (!found.ok()) return found.status();
    if (found->empty()) return std::optional<std::string>();
    return std::optional(std::move(found->begin()->second));
  }

  absl::StatusOr<std::map<std::string, std::string>> List(const std::string& prefix) override {
    return Read(prefix, Keys::kWithPrefix);
  }

  absl::Status Delete(const std::string& key) override {
    const std::lock_guard lock(lock_);
    etcd::DeleteRangeRequest request;
    request.set_key(key);
    etcd::DeleteRangeResponse response;
    return gateway_.Call("/v3/kv/deleterange", request, &response, kTimeout);
  }

  absl::StatusOr<std::string> WaitFor(const std::string& key, absl::Duration timeout) override {
    std::string value;
    Gateway own(endpoints_);  // the others do not wait for this one
    const absl::Status status = FollowKeys(
        own, key, Keys::kOne, absl::Now() + timeout,
        [&](const KeyValues& now) {
          const auto found = now.find(key);
          if (found != now.end()) value = found->second;
          return found == now.end();
        },
        [](const absl::Status&) {});
    if (!status.ok()) return status;
    return value;
  }

 private:
  absl::StatusOr<KeyValues> Read(const std::string& key, Keys which) {
    const std::lock_guard lock(lock_);
    etcd::RangeRequest request;
    request.set_key(key);
    request.set_range_end(EndOfRange(key, which));
    etcd::RangeResponse response;
    if (auto status = gateway_.Call("/v3/kv/range", request, &response, kTimeout); !status.ok()) {
      return status;
    }
    KeyValues found;
    for (const etcd::KeyValue& kv : response.kvs()) found[kv.key()] = kv.value();
    return found;
  }

  const std::vector<std::string> endpoints_;
  std::mutex lock_;
  Gateway gateway_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KeyStore>> OpenEtcd(const std::string& endpoints) {
  auto parsed = ParseEndpoints(endpoints);
  if (!parsed.ok()) return parsed.status();
  return std::make_unique<EtcdStore>(*std::move(parsed));
}

}  // namespace verbena::rpc
