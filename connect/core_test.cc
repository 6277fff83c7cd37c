// SPDX-License-Identifier: Apache-2.0
// Which device is chosen among several, and what is remembered.
#include "connect/core.h"

#include <string>

#include "connect/limits.h"
#include "connect/memory.h"
#include "gtest/gtest.h"

namespace verbena::connect {
namespace {

// A provider's list of devices and nothing else.
class Listed final : public provider::Device {
 public:
  explicit Listed(const DeviceInfo& info) : info_(info) {}
  provider::Context* owner() const override { return nullptr; }
  const DeviceInfo& info() const override { return info_; }
  DeviceAttributes attributes() const override { return {}; }
  Capabilities capabilities() const override { return {}; }
  DeviceCounters counters() const override { return {}; }
  absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> AllocateProtectionDomain() override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CreateCompletionChannel() override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CreateCompletionQueue(
      const CqOptions&) override {
    return absl::UnimplementedError("");
  }

 private:
  const DeviceInfo info_;
};

class List final : public provider::Context {
 public:
  explicit List(const std::vector<DeviceInfo>& infos) {
    for (const DeviceInfo& info : infos) owned_.push_back(std::make_unique<Listed>(info));
  }
  absl::Status Close() override { return absl::OkStatus(); }
  absl::Status CheckClosable() const override { return absl::OkStatus(); }
  Contact contact() const override { return {}; }
  std::vector<provider::Device*> devices() const override {
    std::vector<provider::Device*> all;
    for (const auto& each : owned_) all.push_back(each.get());
    return all;
  }
  absl::StatusOr<std::unique_ptr<provider::Listener>> Listen(const std::string&,
                                                             const ListenOptions&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<provider::Path>> Resolve(const std::string&,
                                                          const ResolveOptions&) override {
    return absl::UnimplementedError("");
  }
  void SetHost(provider::Host*) override {}
  bool Await(absl::FunctionRef<bool()> ready, absl::Duration) override { return ready(); }
  void Wake() override {}

 private:
  std::vector<std::unique_ptr<Listed>> owned_;
};

DeviceInfo Of(const std::string& name, Link link, std::vector<std::string> addresses) {
  return {.name = name, .link = link, .addresses = std::move(addresses), .usable = true};
}

class CoreTest : public testing::Test {
 protected:
  // All, nearest first.
  std::string Nearest(uint8_t links, const std::vector<std::string>& callers,
                      const std::string& local) {
    Ask ask{.links = links};
    for (const std::string& each : callers) ask.addresses.push_back(*ParseIp(each));
    std::string all;
    for (const Site& site : core.Nearest(ask, *ParseIp(local))) {
      all +=
          (all.empty() ? "" : ", ") + site.usable->device->info().name + " " + ToText(site.address);
    }
    return all.empty() ? "none" : all;
  }

  List base{{{.name = "tcp", .usable = true}}};
  List rdma{{Of("ib0", Link::kInfiniband, {"10.9.0.1"}),
             Of("mlx5_0", Link::kRoce, {"10.1.0.1", "fe80::1"}),
             Of("mlx5_1", Link::kRoce, {"10.2.0.1"}),
             Of("bare", Link::kRoce, {}),
             {.name = "down", .reason = "its port is down"}}};
  Core core{&base, {&rdma}, {}};
};

constexpr uint8_t kAll = 7;

TEST_F(CoreTest, NearestDeviceFirst) {
  EXPECT_EQ(Nearest(kAll, {"10.2.0.9"}, "192.168.0.1"),
            "mlx5_1 10.2.0.1, mlx5_0 10.1.0.1, ib0 10.9.0.1");
  EXPECT_EQ(Nearest(kAll, {"10.9.0.9"}, "192.168.0.1"),
            "ib0 10.9.0.1, mlx5_0 10.1.0.1, mlx5_1 10.2.0.1");
  EXPECT_EQ(Nearest(LinkBit(Link::kRoce), {"10.9.0.9"}, "10.1.0.1"),
            "mlx5_0 10.1.0.1, mlx5_1 10.2.0.1");
  EXPECT_EQ(Nearest(kAll, {"10.9.0.9"}, "10.1.0.1"),
            "mlx5_0 10.1.0.1, ib0 10.9.0.1, mlx5_1 10.2.0.1");
  EXPECT_EQ(Nearest(kAll, {"fe80::9"}, "192.168.0.1"),
            "mlx5_0 fe80::1, ib0 10.9.0.1, mlx5_1 10.2.0.1");
  EXPECT_EQ(Nearest(LinkBit(Link::kIwarp), {"10.1.0.9"}, "10.1.0.1"), "none");
}

TEST_F(CoreTest, EveryDeviceHasAReason) {
  const std::vector<Candidate> all = core.WithoutRdma(Rdma::kAuto, "not tried");
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(all[0].reason, "not tried");
  EXPECT_EQ(all[3].device, "bare");
  EXPECT_EQ(all[3].reason, "it has no IP address to connect to");
  EXPECT_EQ(all[4].reason, "its port is down");
  EXPECT_EQ(all[5].device, "tcp");
  EXPECT_TRUE(all[5].chosen);
}

// Also beside one that serves.
TEST_F(CoreTest, EveryDeviceIsACandidate) {
  const std::vector<Candidate> all =
      core.OnDevice(*core.usable()[1].device, kProven, Rdma::kAuto, {{"ib0", false, "silent"}});
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(all[0].device, "mlx5_0");
  EXPECT_TRUE(all[0].chosen);
  EXPECT_EQ(all[1].device, "ib0");
  EXPECT_EQ(all[1].reason, "silent");
  EXPECT_EQ(all[2].device, "mlx5_1");
  EXPECT_EQ(all[2].reason, "another device serves");
  EXPECT_EQ(all[4].reason, "its port is down");
  EXPECT_EQ(all[5].device, "tcp");
}

TEST(MemoryTest, ForgetsAfterAWhile) {
  Memory memory;
  memory.Remember("a:1", {.peer_selects = true}, absl::Seconds(5));
  EXPECT_TRUE(memory.Recall("a:1", absl::Seconds(34)).has_value());
  EXPECT_FALSE(memory.Recall("b:1", absl::Seconds(34)).has_value());
  EXPECT_FALSE(memory.Recall("a:1", absl::Seconds(35)).has_value());
  memory.Remember("a:1", {}, absl::Seconds(5));
  memory.Forget("a:1");
  EXPECT_FALSE(memory.Recall("a:1", absl::Seconds(5)).has_value());
}

TEST(MemoryTest, IsBounded) {
  Memory memory;
  for (size_t i = 0; i <= kRemembered; ++i) {
    memory.Remember(std::to_string(i), {}, absl::Milliseconds(i));
  }
  EXPECT_FALSE(memory.Recall("0", absl::Seconds(2)).has_value());
  EXPECT_TRUE(memory.Recall("1", absl::Seconds(2)).has_value());
  EXPECT_TRUE(memory.Recall(std::to_string(kRemembered), absl::Seconds(2)).has_value());
}

}  // namespace
}  // namespace verbena::connect
