// SPDX-License-Identifier: Apache-2.0
// What callers may cost a listener, and what a peer may answer that should not.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "connect/core.h"
#include "connect/limits.h"
#include "connect/offers.h"
#include "connect/rendezvous.h"
#include "gtest/gtest.h"
#include "transport/fake_provider.h"

namespace verbena::connect {
namespace {

// An RDMA device that listens as often as it is asked to.
class Listening final : public fake::Context {
 public:
  std::vector<provider::Device*> devices() const override { return {&rdma_}; }
  absl::StatusOr<std::unique_ptr<provider::Listener>> Listen(const std::string&,
                                                             const ListenOptions&) override {
    return std::make_unique<fake::Listener>();
  }

 private:
  mutable fake::Device rdma_{
      this,
      DeviceInfo{.name = "mlx5_0", .link = Link::kRoce, .addresses = {"10.1.0.1"}, .usable = true}};
};

class BoundsTest : public testing::Test {
 protected:
  // How many of `count` callers are offered a port, the n-th from `prefix` + n.
  size_t Offered(const std::string& prefix, size_t count) {
    size_t offered = 0;
    for (size_t n = 1; n <= count; ++n) {
      const std::string peer = absl::StrCat("[", prefix, absl::Hex(n), "]:51022");
      const Ask ask{.links = LinkBit(Link::kRoce)};
      const Answer answer = offers.Open(ask, {.local = "[::1]:7471", .peer = peer}, now);
      EXPECT_TRUE(answer.reason == Reason::kNone || answer.reason == Reason::kBusy);
      offered += answer.reason == Reason::kNone;
    }
    return offered;
  }

  const absl::Duration now = absl::Seconds(1);
  fake::Context base;
  Listening rdma;
  Core core{&base, {&rdma}, {}};
  Offers offers{&core, nullptr};
};

// One machine may use any address of its /64. Expect: others still come in.
TEST_F(BoundsTest, OneIpv6NetworkDoesNotTakeAllOffers) {
  EXPECT_EQ(Offered("2001:db8:0:1::", kOffers), kOffersPerNetwork);
  EXPECT_EQ(Offered("2001:db8:0:2::", 3), 3u);
  EXPECT_EQ(Offered("::ffff:10.9.0.", 3), 3u);
  EXPECT_EQ(Offered("2001:db8:0:3::", kOffers), kOffers - kOffersPerNetwork - 6);
}

TEST_F(BoundsTest, OneAddressDoesNotTakeAllOffersOfItsNetwork) {
  size_t offered = 0;
  for (size_t n = 0; n < kOffers; ++n) offered += Offered("2001:db8:0:1::", 1);
  EXPECT_EQ(offered, kOffersPerPeer);
  EXPECT_EQ(Offered("2001:db8:0:1::", 2), 1u);
}

// Neighbours in IPv4 are machines of their own.
TEST_F(BoundsTest, Ipv4NeighboursAreNotOneNetwork) {
  EXPECT_EQ(Offered("::ffff:10.9.0.", 9), 9u);
  EXPECT_FALSE(OneNetwork(*ParseIp("10.9.0.1"), *ParseIp("10.9.0.2")));
  EXPECT_TRUE(OneNetwork(*ParseIp("10.9.0.1"), *ParseIp("10.9.0.1")));
  EXPECT_FALSE(OneNetwork(*ParseIp("10.9.0.1"), *ParseIp("::1")));
}

// A path whose peer takes the question for a connection, and accepts it.
class Accepting final : public fake::Path {
 public:
  using fake::Path::Path;
  absl::Status Connect(provider::QueuePair& qp, const ConnectParameters&) override {
    dynamic_cast<fake::QueuePair&>(qp).latest.kind = ConnectOutcome::Kind::kEstablished;
    return absl::OkStatus();
  }
};

// Expect: it does not select, which is no failure of ours.
TEST_F(BoundsTest, PeerThatAcceptsARendezvousDoesNotSelect) {
  Rendezvous rendezvous(&core, nullptr);
  Accepting path(&base.device);
  const Verdict verdict = rendezvous.Prove(path, "10.0.0.1:7471", absl::Seconds(1));
  EXPECT_EQ(verdict.device, nullptr);
  EXPECT_FALSE(verdict.peer_selects);
  ASSERT_EQ(verdict.losers.size(), 1u);
  EXPECT_EQ(verdict.losers[0].reason, "the peer took the question for a connection");
  EXPECT_TRUE(verdict.plain);
}

}  // namespace
}  // namespace verbena::connect
