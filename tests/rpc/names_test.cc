// SPDX-License-Identifier: Apache-2.0
// One name for several servers: lists, DNS, and addresses that come and go while calls run.
#include <future>
#include <set>
#include <thread>

#include "rpc/dns.h"
#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// A server that can be stopped and started at one address.
struct Stand {
  Stand() : server(Serve(shelf)), address(server->address()) {}
  void Stop() { server.reset(); }
  void Start() { server = Serve(shelf, {}, address); }

  TestShelf shelf;
  std::unique_ptr<Server> server;
  const std::string address;
};

std::string ListOf(std::span<const std::unique_ptr<Stand>> shops) {
  std::string list;
  for (const auto& shop : shops) list += (list.empty() ? "" : ",") + shop->address;
  return list;
}

std::vector<std::unique_ptr<Stand>> Shops(size_t count) {
  std::vector<std::unique_ptr<Stand>> shops;
  for (size_t i = 0; i < count; ++i) shops.push_back(std::make_unique<Stand>());
  return shops;
}

// Calls go on until so many servers are in use.
void AwaitUsable(Channel& channel, uint32_t count) {
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (channel.counters().usable != count && absl::Now() < deadline) {
    ClientContext context;
    context.set_wait_for_ready(true);
    (void)Shelf::Client(channel).Echo(Say("is anybody there?"), context);
  }
  ASSERT_EQ(channel.counters().usable, count);
}

TEST(RpcNames, AListIsSharedEvenly) {
  const auto shops = Shops(3);
  auto channel = ChannelTo(ListOf(shops));
  const Shelf::Client client(*channel);
  AwaitUsable(*channel, 3);
  std::vector<size_t> before;
  for (const auto& shop : shops) before.push_back(shop->shelf.echoes());
  for (int i = 0; i < 300; ++i) ASSERT_THAT(client.Echo(Say("x")), IsOk());
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(shops[i]->shelf.echoes() - before[i], 100u) << i;
  EXPECT_EQ(channel->counters().addresses, 3u);
  EXPECT_EQ(channel->counters().connections, 3u);
}

// Two servers of which one holds all that it gets: the calls that run there count.
TEST(RpcNames, WhereTheFewestCallsRun) {
  const auto shops = Shops(2);
  auto channel = ChannelTo(ListOf(shops));
  const Shelf::Client client(*channel);
  AwaitUsable(*channel, 2);
  std::vector<ClientContext> contexts(20);
  std::mutex lock;
  std::condition_variable answered;
  size_t answers = 0;
  for (ClientContext& context : contexts) {
    client.Hold(Say(""), context, [&](const absl::StatusOr<Text>& answer) {
      EXPECT_THAT(answer, IsOk());
      const std::lock_guard guard(lock);
      ++answers;
      answered.notify_one();
    });
  }
  const auto await = [&](size_t count) {
    std::unique_lock waits(lock);
    return answered.wait_for(waits, absl::ToChronoSeconds(kLongEnough),
                             [&] { return answers == count; });
  };
  // Ten at each; those of the first are answered.
  std::vector<TestShelf::HeldCall> held;
  for (int i = 0; i < 10; ++i) {
    shops[0]->shelf.NextHeld().Finish(Say(""));
    held.push_back(shops[1]->shelf.NextHeld());
  }
  ASSERT_TRUE(await(10));
  const size_t before = shops[1]->shelf.echoes();
  for (int i = 0; i < 50; ++i) ASSERT_THAT(client.Echo(Say("x")), IsOk());
  EXPECT_EQ(shops[1]->shelf.echoes(), before);
  for (auto& call : held) call.Finish(Say(""));
  EXPECT_TRUE(await(20));
}

// One of three dies while calls run: those that may run twice all end well, no call goes to it
// until it is back, and then they do by themselves.
TEST(RpcNames, ADeadOneIsLeftOutAndComesBack) {
  const auto shops = Shops(3);
  auto channel = ChannelTo(ListOf(shops), {.longest_pause = absl::Milliseconds(100)});
  const Shelf::Client client(*channel);
  AwaitUsable(*channel, 3);
  std::atomic<bool> stop = false;
  std::atomic<int> failed = 0;
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&] {
      while (!stop.load()) {
        const auto answer = client.Echo(Say("x"));
        if (answer.ok()) continue;
        ADD_FAILURE() << answer.status();
        failed.fetch_add(1);
      }
    });
  }
  for (int round = 0; round < 3; ++round) {
    shops[1]->Stop();
    AwaitUsable(*channel, 2);
    EXPECT_EQ(channel->counters().addresses, 3u);
    shops[1]->Start();
    AwaitUsable(*channel, 3);
    const size_t before = shops[1]->shelf.echoes();
    const absl::Time deadline = absl::Now() + kLongEnough;
    while (shops[1]->shelf.echoes() == before && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_GT(shops[1]->shelf.echoes(), before);
  }
  stop.store(true);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failed.load(), 0);
}

// Answers nothing.
class Silent final : public Shelf::AsyncService {
 public:
  void Echo(rpc::ServerCall<Text, Text> call) override {
    const std::lock_guard lock(lock_);
    held_.push_back(std::move(call));
    came_.notify_one();
  }
  void AwaitCall() {
    std::unique_lock lock(lock_);
    ASSERT_TRUE(
        came_.wait_for(lock, absl::ToChronoSeconds(kLongEnough), [&] { return !held_.empty(); }));
  }
  void LetGo() {
    const std::lock_guard lock(lock_);
    held_.clear();
  }

 private:
  std::mutex lock_;
  std::condition_variable came_;
  std::vector<rpc::ServerCall<Text, Text>> held_;
};

// A call that is lost with its connection is tried again where another stands, at once.
TEST(RpcNames, ARetryWhileAnotherConnectionStands) {
  Silent silent;
  auto deaf = Serve(silent);
  Stand other;
  auto channel = ChannelTo(deaf->address() + "," + other.address, {.first_pause = absl::Hours(1)});
  const Shelf::Client client(*channel);
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (channel->counters().usable < 2 && absl::Now() < deadline) std::this_thread::yield();
  // Of two at once, one goes to each.
  std::vector<ClientContext> contexts(2);
  std::vector<std::promise<absl::StatusOr<Text>>> answers(2);
  for (size_t i = 0; i < 2; ++i) {
    client.Echo(Say("x"), contexts[i],
                [&, i](absl::StatusOr<Text> answer) { answers[i].set_value(std::move(answer)); });
  }
  silent.AwaitCall();
  (void)deaf->Shutdown(absl::ZeroDuration());
  for (auto& answer : answers) EXPECT_THAT(answer.get_future().get(), IsOk());
  EXPECT_EQ(contexts[0].attempts() + contexts[1].attempts(), 3);
  EXPECT_EQ(channel->counters().usable, 1u);
  EXPECT_EQ(channel->counters().connections, 2u);
  silent.LetGo();
}

TEST(RpcNames, AllAreDead) {
  auto shops = Shops(2);
  auto channel = ChannelTo(ListOf(shops), {.longest_pause = absl::Milliseconds(100)});
  const Shelf::Client client(*channel);
  ASSERT_THAT(channel->WaitUntilConnected(kLongEnough), IsOk());
  for (const auto& shop : shops) shop->Stop();
  const absl::Time deadline = absl::Now() + kLongEnough;
  absl::Status last;
  while ((last = client.Echo(Say("x")).status()).ok() && absl::Now() < deadline) {
  }
  EXPECT_THAT(last, StatusIs(absl::StatusCode::kUnavailable));
  shops[1]->Start();
  ClientContext context(kLongEnough);
  context.set_wait_for_ready(true);
  EXPECT_THAT(client.Echo(Say("x"), context), IsOk());
}

// What was lent is lent to one server, and the call goes there.
TEST(RpcNames, ACallGoesWhereItLent) {
  const auto shops = Shops(3);
  auto channel = ChannelTo(ListOf(shops));
  const Shelf::Client client(*channel);
  AwaitUsable(*channel, 3);
  std::vector<std::byte> memory = Pattern(100'000, 5);
  for (int i = 0; i < 20; ++i) {
    ClientContext context;
    Parcel parcel;
    *parcel.mutable_bulk() = Check(channel->Lend(context, memory, BulkAccess::kRead));
    parcel.set_bytes(memory.size());
    ASSERT_THAT(client.Echo(Say("another in between")), IsOk());
    EXPECT_EQ(Check(client.Take(parcel, context)).sum(), SumOf(memory));
  }
}

// The resolver of a test: it says what the test says.
class Told final : public rpc::Resolver {
 public:
  explicit Told(Told** self) { *self = this; }
  void Start(Changed changed) override { tell = std::move(changed); }
  void LookAgain() override { asked.fetch_add(1); }
  Changed tell;
  std::atomic<int> asked = 0;
};

struct ToldChannel {
  Told* told = nullptr;
  std::unique_ptr<Channel> channel = ChannelTo(
      "test:shelves",
      {.longest_pause = absl::Milliseconds(100),
       .names = [this](const std::string& name) -> absl::StatusOr<std::unique_ptr<rpc::Resolver>> {
         if (name != "test:shelves") return nullptr;
         return std::make_unique<Told>(&told);
       }});
  Shelf::Client client{*channel};
};

// Calls that wait for the first answer; then none is lost while addresses come and go under them.
TEST(RpcNames, AddressesThatComeAndGo) {
  const auto shops = Shops(3);
  ToldChannel named;
  ClientContext first;
  std::promise<absl::StatusOr<Text>> answered;
  named.client.Echo(Say("early"), first,
                    [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  named.told->tell(std::vector<std::string>{shops[0]->address});
  EXPECT_EQ(Check(answered.get_future().get()).text(), "early");

  std::atomic<bool> stop = false;
  std::vector<std::thread> callers;
  for (int t = 0; t < 2; ++t) {
    callers.emplace_back([&] {
      // Neither may run twice: a call at a server that leaves the list ends where it is.
      while (!stop.load()) EXPECT_THAT(named.client.Do(Order()), IsOk());
    });
  }
  for (size_t round = 0; round < 12; ++round) {
    const std::string& stays = shops[round % 3]->address;
    const std::string& comes = shops[(round + 1) % 3]->address;
    named.told->tell(std::vector<std::string>{stays, comes});
    AwaitUsable(*named.channel, 2);
    named.told->tell(std::vector<std::string>{comes});
    AwaitUsable(*named.channel, 1);
  }
  stop.store(true);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(named.channel->counters().addresses, 1u);
}

TEST(RpcNames, NobodyStandsForTheName) {
  Stand shop;
  ToldChannel named;
  named.told->tell(absl::UnavailableError("the names are away"));
  for (int i = 0; i < 2; ++i) {  // also who comes when that is known already
    EXPECT_THAT(named.channel->WaitUntilConnected(kLongEnough),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the names are away")));
  }
  EXPECT_THAT(named.client.Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the names are away")));
  named.told->tell(std::vector<std::string>());
  const absl::Time deadline = absl::Now() + kLongEnough;
  absl::Status last;
  do {
    last = named.client.Echo(Say("x")).status();
  } while (last.message().find("no server") == absl::string_view::npos && absl::Now() < deadline);
  EXPECT_THAT(last, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no server is known")));
  named.told->tell(std::vector<std::string>{shop.address});
  ClientContext context(kLongEnough);
  context.set_wait_for_ready(true);
  EXPECT_THAT(named.client.Echo(Say("x"), context), IsOk());
  // What is known stays while the names are away, and a lost server is a reason to ask.
  named.told->tell(absl::UnavailableError("away again"));
  EXPECT_THAT(named.client.Echo(Say("x")), IsOk());
  const int before = named.told->asked.load();
  shop.Stop();
  while (named.told->asked.load() == before && absl::Now() < deadline) {
    (void)named.client.Echo(Say("x"));
  }
  EXPECT_GT(named.told->asked.load(), before);
}

// Made and closed at every moment of a connection's making.
TEST(RpcNames, ClosedWhileItConnects) {
  const auto shops = Shops(2);
  for (int i = 0; i < 30; ++i) {
    auto channel = ChannelTo(ListOf(shops) + ",127.0.0.1:1");
    if (i % 3 == 1) (void)channel->WaitUntilConnected(kLongEnough);
    if (i % 3 == 2) (void)Shelf::Client(*channel).Echo(Say("x"));
  }
}

TEST(RpcNames, WhatIsNoName) {
  for (const char* wrong : {"", "a:1,", ",a:1", "a:1,,b:2", "etcd:host:2379/service"}) {
    EXPECT_THAT(Channel::Open(wrong, {.context = ContextUnderTest()}),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << wrong;
  }
}

TEST(RpcDns, AHost) {
  if (std::getenv("VERBENA_RPC_ADDRESS") != nullptr) GTEST_SKIP() << "localhost is kernel TCP's";
  Shop shop;
  const std::string port = std::to_string(shop.server->port());
  EXPECT_THAT(Check(rpc::LookUpHost("localhost", port)), Contains("127.0.0.1:" + port));
  EXPECT_THAT(Check(rpc::LookUpHost("::1", port)), Contains("[::1]:" + port));
  auto channel = ChannelTo("dns:localhost:" + port);
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")), IsOk());
  auto six = ChannelTo("dns:[::1]:" + port);
  EXPECT_THAT(Shelf::Client(*six).Echo(Say("x")), StatusIs(absl::StatusCode::kUnavailable));
  auto none = ChannelTo("dns:no-such-host.invalid:" + port);
  EXPECT_THAT(Shelf::Client(*none).Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no-such-host.invalid")));
}

// Asked again after each period, and soon after a LookAgain; what is found is told each time.
TEST(RpcDns, AskedAgain) {
  using Addresses = absl::StatusOr<std::vector<std::string>>;
  for (const bool by_period : {true, false}) {
    int asked = 0;
    std::mutex lock;
    std::condition_variable told;
    std::vector<Addresses> all;
    rpc::DnsResolver resolver(
        [&]() -> Addresses {
          if (++asked == 2) return absl::UnavailableError("the name server is away");
          return std::vector<std::string>{"10.0.0." + std::to_string(asked) + ":1"};
        },
        by_period ? absl::Milliseconds(2) : absl::Hours(1), absl::Milliseconds(1));
    resolver.Start([&](Addresses addresses) {
      const std::lock_guard guard(lock);
      all.push_back(std::move(addresses));
      told.notify_one();
    });
    for (size_t i = 1; i <= 4; ++i) {
      std::unique_lock guard(lock);
      ASSERT_TRUE(told.wait_for(guard, absl::ToChronoSeconds(kLongEnough),
                                [&] { return all.size() >= i; }));
      guard.unlock();
      if (!by_period) resolver.LookAgain();
    }
    const std::lock_guard guard(lock);
    EXPECT_THAT(all[1], StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(Check(all[3]), Contains("10.0.0.4:1"));
  }
}

}  // namespace
}  // namespace verbena::testing
