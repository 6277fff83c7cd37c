// SPDX-License-Identifier: Apache-2.0
// Values and registrations in a real etcd, which is killed and comes back.
#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/etcd.pb.h"
#include "rpc/names/etcd.h"
#include "rpc/names/follow.h"
#include "rpc/names/gateway.h"
#include "tests/conformance/check.h"
#include "tests/rpc/names/etcd_server.h"

namespace verbena::testing {
namespace {

using conformance::Check;
using conformance::IsOk;
using conformance::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr absl::Duration kLongEnough = absl::Seconds(60);

TEST(EtcdStore, WhatWasPutIsThere) {
  const EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  EXPECT_EQ(Check(store->Get("a/1")), std::nullopt);
  const std::string bytes("\0\xff\n\"binary", 10);
  ASSERT_THAT(store->Put("a/1", bytes), IsOk());
  ASSERT_THAT(store->Put("a/2", ""), IsOk());
  ASSERT_THAT(store->Put("b", "other"), IsOk());
  EXPECT_EQ(Check(store->Get("a/1")), bytes);
  EXPECT_THAT(Check(store->List("a/")), ElementsAre(Pair("a/1", bytes), Pair("a/2", "")));
  ASSERT_THAT(store->Put("a/1", "new"), IsOk());
  EXPECT_EQ(Check(store->WaitFor("a/1", kLongEnough)), "new");
  ASSERT_THAT(store->Delete("a/1"), IsOk());
  EXPECT_EQ(Check(store->Get("a/1")), std::nullopt);
}

TEST(EtcdStore, SeveralEndpointsOfWhichOneIsThere) {
  const EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd("127.0.0.1:1," + etcd.endpoint()));
  ASSERT_THAT(store->Put("key", "value"), IsOk());
  EXPECT_EQ(Check(store->WaitFor("key", kLongEnough)), "value");
}

TEST(EtcdStore, NobodyThere) {
  auto store = Check(rpc::OpenEtcd("127.0.0.1:1"));
  EXPECT_THAT(store->Put("key", "value"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(store->WaitFor("key", absl::Milliseconds(100)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  for (const char* wrong : {"", "host", "host:", ":1", "a:1,,b:2", "http://a:1"}) {
    EXPECT_THAT(rpc::OpenEtcd(wrong), StatusIs(absl::StatusCode::kInvalidArgument)) << wrong;
  }
}

// A key that comes while somebody waits; not one whose name only begins like it.
TEST(EtcdStore, WaitsForAKey) {
  const EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  auto waits =
      std::async(std::launch::async, [&] { return store->WaitFor("rank/1", kLongEnough); });
  ASSERT_THAT(store->Put("rank/10", "ten"), IsOk());
  ASSERT_THAT(store->Put("rank/1", "one"), IsOk());
  EXPECT_EQ(Check(waits.get()), "one");
  EXPECT_THAT(store->WaitFor("rank/2", absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

// The store is killed while somebody waits, and the key is put when it is back.
TEST(EtcdStore, WaitsWhileTheStoreIsAway) {
  EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  ASSERT_THAT(store->Put("before", "x"), IsOk());
  auto waits = std::async(std::launch::async, [&] { return store->WaitFor("key", kLongEnough); });
  etcd.Kill();
  EXPECT_THAT(store->Get("before"), StatusIs(absl::StatusCode::kUnavailable));
  etcd.Start();
  EXPECT_EQ(Check(store->Get("before")), "x");
  ASSERT_THAT(store->Put("key", "value"), IsOk());
  EXPECT_EQ(Check(waits.get()), "value");
}

// It comes back with none of its data, at a lower revision than was seen.
TEST(EtcdStore, WaitsThoughAllIsLost) {
  EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  for (int i = 0; i < 20; ++i) ASSERT_THAT(store->Put("count", std::to_string(i)), IsOk());
  auto waits = std::async(std::launch::async, [&] { return store->WaitFor("key", kLongEnough); });
  etcd.Kill();
  etcd.LoseData();
  etcd.Start();
  ASSERT_THAT(store->Put("key", "value"), IsOk());
  EXPECT_EQ(Check(waits.get()), "value");
}

// Its keys as somebody sees them who is busy whenever something has changed.
class SlowFollower {
 public:
  explicit SlowFollower(const std::string& endpoint)
      : gateway_({endpoint}), thread_([this] {
          (void)rpc::FollowKeys(
              gateway_, "f/", rpc::Keys::kWithPrefix, absl::InfiniteFuture(),
              [this](const rpc::KeyValues& now) { return Seen(now); }, [](const absl::Status&) {});
        }) {}
  ~SlowFollower() {
    gateway_.Stop();
    thread_.join();
  }
  // What it sees next; it stays with that until it is let on.
  rpc::KeyValues Next() {
    std::unique_lock lock(lock_);
    const bool came = changed_.wait_for(lock, absl::ToChronoSeconds(kLongEnough),
                                        [this] { return seen_.has_value(); });
    EXPECT_TRUE(came);
    return came ? *seen_ : rpc::KeyValues();
  }
  void GoOn() {
    const std::lock_guard lock(lock_);
    seen_.reset();
    changed_.notify_all();
  }

 private:
  bool Seen(const rpc::KeyValues& now) {
    std::unique_lock lock(lock_);
    seen_ = now;
    changed_.notify_all();
    return changed_.wait_for(lock, absl::ToChronoSeconds(kLongEnough),
                             [this] { return !seen_.has_value(); });
  }
  std::mutex lock_;
  std::condition_variable changed_;
  std::optional<rpc::KeyValues> seen_;
  rpc::Gateway gateway_;
  std::thread thread_;
};

enum class Meanwhile { kNothing, kCompacted, kLost };

// While it has no connection a key goes, one comes, one changes: all of it is seen afterwards. If
// etcd has forgotten how it came to that, or all that there was, the keys are read again.
void ChangesBehindItsBack(Meanwhile what) {
  EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  for (int i = 0; i < 20; ++i) ASSERT_THAT(store->Put("f/changes", std::to_string(i)), IsOk());
  ASSERT_THAT(store->Put("f/goes", "1"), IsOk());
  SlowFollower follower(etcd.endpoint());
  EXPECT_EQ(follower.Next().size(), 2u);
  follower.GoOn();
  // It watches, and is busy with this when the connection goes.
  ASSERT_THAT(store->Put("f/changes", "1"), IsOk());
  EXPECT_EQ(follower.Next().at("f/changes"), "1");
  etcd.Kill();
  if (what == Meanwhile::kLost) etcd.LoseData();
  etcd.Start();
  ASSERT_THAT(store->Delete("f/goes"), IsOk());
  ASSERT_THAT(store->Put("f/changes", "2"), IsOk());
  ASSERT_THAT(store->Put("f/comes", "1"), IsOk());
  if (what == Meanwhile::kCompacted) {
    rpc::Gateway gateway({etcd.endpoint()});
    rpc::etcd::RangeRequest any;
    any.set_key("f/comes");
    rpc::etcd::RangeResponse now;
    ASSERT_THAT(gateway.Call("/v3/kv/range", any, &now, kLongEnough), IsOk());
    rpc::etcd::ResponseHeader compaction;  // has the field that etcd's has, "revision"
    compaction.set_revision(now.header().revision());
    rpc::etcd::PutResponse done;
    ASSERT_THAT(gateway.Call("/v3/kv/compaction", compaction, &done, kLongEnough), IsOk());
  }
  follower.GoOn();
  const rpc::KeyValues after = {{"f/changes", "2"}, {"f/comes", "1"}};
  rpc::KeyValues seen;
  const absl::Time deadline = absl::Now() + kLongEnough;
  while ((seen = follower.Next()) != after && absl::Now() < deadline) follower.GoOn();
  EXPECT_EQ(seen, after);
  follower.GoOn();
  ASSERT_THAT(store->Put("f/comes", "2"), IsOk());
  EXPECT_EQ(follower.Next().at("f/comes"), "2");
  follower.GoOn();
}

TEST(EtcdFollow, NothingIsMissed) { ChangesBehindItsBack(Meanwhile::kNothing); }
TEST(EtcdFollow, NothingIsMissedThatWasForgotten) { ChangesBehindItsBack(Meanwhile::kCompacted); }
TEST(EtcdFollow, AllIsReadAgainWhenAllWasLost) { ChangesBehindItsBack(Meanwhile::kLost); }

TEST(EtcdStore, WhatItRefuses) {
  const EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  EXPECT_THAT(store->Put("", "no key"), StatusIs(absl::StatusCode::kInvalidArgument));
}

// Polls the list until it is as it should; etcd answers at its own pace.
template <typename Matcher>
void AwaitList(rpc::KeyStore& store, const std::string& prefix, const Matcher& matcher) {
  const absl::Time deadline = absl::Now() + kLongEnough;
  auto now = Check(store.List(prefix));
  while (!::testing::Value(now, matcher) && absl::Now() < deadline) now = Check(store.List(prefix));
  EXPECT_THAT(now, matcher);
}

TEST(EtcdStore, AValueWithALifetime) {
  const EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  ASSERT_THAT(store->Put("life/short", "x", absl::Seconds(1)), IsOk());
  ASSERT_THAT(store->Put("life/long", "y"), IsOk());
  AwaitList(*store, "life/", ElementsAre(Pair("life/long", "y")));
}

TEST(EtcdRegistration, AsLongAsItLives) {
  const EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  {
    auto one = Check(rpc::Registration::Open(etcd.Name("shop"), "10.0.0.1:7500", absl::Seconds(1)));
    auto two = Check(rpc::Registration::Open(etcd.Name("shop"), "10.0.0.2:7500"));
    ASSERT_THAT(one->WaitUntilRegistered(kLongEnough), IsOk());
    ASSERT_THAT(two->WaitUntilRegistered(kLongEnough), IsOk());
    // Longer than its lease: it is kept alive.
    ASSERT_THAT(store->Put("clock", "x", absl::Seconds(2)), IsOk());
    AwaitList(*store, "clock", IsEmpty());
    EXPECT_THAT(Check(store->List("shop/")),
                ElementsAre(Pair("shop/10.0.0.1:7500", "10.0.0.1:7500"),
                            Pair("shop/10.0.0.2:7500", "10.0.0.2:7500")));
  }
  EXPECT_THAT(Check(store->List("shop/")), IsEmpty());
}

// etcd is killed and comes back: with its data, and without. The second has no such lease.
TEST(EtcdRegistration, MadeAgain) {
  EtcdServer etcd;
  auto store = Check(rpc::OpenEtcd(etcd.endpoint()));
  auto one = Check(rpc::Registration::Open(etcd.Name("shop"), "10.0.0.1:7500", absl::Seconds(1)));
  ASSERT_THAT(one->WaitUntilRegistered(kLongEnough), IsOk());
  etcd.Kill();
  etcd.Start();
  const auto there = ElementsAre(Pair("shop/10.0.0.1:7500", "10.0.0.1:7500"));
  AwaitList(*store, "shop/", there);
  etcd.Kill();
  etcd.LoseData();
  etcd.Start();
  AwaitList(*store, "shop/", there);
}

TEST(EtcdRegistration, BeforeEtcdIsThere) {
  EtcdServer etcd;
  etcd.Kill();
  auto one = Check(rpc::Registration::Open(etcd.Name("shop"), "10.0.0.1:7500"));
  EXPECT_THAT(one->WaitUntilRegistered(absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kUnavailable));
  etcd.Start();
  EXPECT_THAT(one->WaitUntilRegistered(kLongEnough), IsOk());
}

TEST(EtcdRegistration, WhatCannotBe) {
  for (const char* wrong : {"shop", "etcd:h:1", "etcd:h:1/", "etcd:h/shop", "etcd:/shop"}) {
    EXPECT_THAT(rpc::Registration::Open(wrong, "10.0.0.1:7500"),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << wrong;
  }
}

}  // namespace
}  // namespace verbena::testing
