// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <thread>
#include <utility>

#include "rpc/names/etcd.h"
#include "rpc/names/follow.h"
#include "rpc/names/gateway.h"

namespace verbena::rpc {
namespace {

class EtcdResolver final : public Resolver {
 public:
  explicit EtcdResolver(EtcdName name) : name_(std::move(name)), gateway_(name_.endpoints) {}
  ~EtcdResolver() override {
    gateway_.Stop();
    if (thread_.joinable()) thread_.join();
  }

  void Start(Changed changed) override {
    thread_ = std::thread([this, changed = std::move(changed)] {
      (void)FollowKeys(
          gateway_, name_.prefix, Keys::kWithPrefix, absl::InfiniteFuture(),
          [&](const KeyValues& now) {
            std::set<std::string> addresses;
            for (const auto& [key, address] : now) addresses.insert(address);
            changed(std::vector<std::string>(addresses.begin(), addresses.end()));
            return true;
          },
          [&](const absl::Status& why) { changed(why); });
    });
  }
  void LookAgain() override {}  // etcd says what changes by itself

 private:
  const EtcdName name_;
  Gateway gateway_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Resolver>> EtcdNames(const std::string& name) {
  if (!name.starts_with("etcd:")) return nullptr;
  auto parsed = ParseEtcdName(name);
  if (!parsed.ok()) return parsed.status();
  return std::make_unique<EtcdResolver>(*std::move(parsed));
}

}  // namespace verbena::rpc
