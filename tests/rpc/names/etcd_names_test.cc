// SPDX-License-Identifier: Apache-2.0
// A name of etcd for servers that are processes, come, are killed and come back; and so is etcd.
#include <signal.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "rpc/names/etcd.h"
#include "tests/process/process.h"
#include "tests/rpc/fixture.h"
#include "tests/rpc/names/etcd_server.h"

namespace verbena::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Program() {
  const std::string path = "tests/rpc/names/registered_server";
  return access(path.c_str(), X_OK) == 0 ? path : "bazel-bin/" + path;
}

class EtcdNames : public ::testing::Test {
 protected:
  std::unique_ptr<Process> NewServer(const std::string& lifetime = "2") {
    auto server = std::make_unique<Process>(
        std::vector<std::string>{Program(), etcd_.Name("shop/shelves"), lifetime});
    server->LineWith("registered");
    return server;
  }
  std::unique_ptr<Channel> NewChannel() {
    return ChannelTo(etcd_.Name("shop/shelves"),
                     {.longest_pause = absl::Milliseconds(200), .names = rpc::EtcdNames});
  }
  // Calls until so many addresses are known, and all of them answer.
  void Await(Channel& channel, uint32_t addresses, uint32_t usable) {
    const absl::Time deadline = absl::Now() + kLongEnough;
    auto now = channel.counters();
    while ((now.addresses != addresses || now.usable != usable) && absl::Now() < deadline) {
      ClientContext context(absl::Seconds(1));
      context.set_wait_for_ready(usable > 0);
      (void)Shelf::Client(channel).Echo(Say("?"), context);
      now = channel.counters();
    }
    ASSERT_EQ(now.addresses, addresses);
    ASSERT_EQ(now.usable, usable);
  }
  // How many of `calls` each process answered.
  std::map<std::string, int> Who(Channel& channel, int calls) {
    std::map<std::string, int> who;
    for (int i = 0; i < calls; ++i) ++who[Check(Shelf::Client(channel).Echo(Say("who?"))).text()];
    return who;
  }

  EtcdServer etcd_;
};

TEST_F(EtcdNames, ServersThatComeAndAreKilled) {
  auto one = NewServer();
  auto channel = NewChannel();
  ASSERT_THAT(Shelf::Client(*channel).Echo(Say("x")), IsOk());
  auto two = NewServer();
  Await(*channel, 2, 2);
  EXPECT_EQ(Who(*channel, 40)[std::to_string(two->pid())], 20);

  // Left out at once; its address goes with its lease.
  one->Kill(SIGKILL);
  one->Wait();
  for (int i = 0; i < 40; ++i) ASSERT_THAT(Shelf::Client(*channel).Echo(Say("x")), IsOk());
  EXPECT_EQ(channel->counters().usable, 1u);
  Await(*channel, 1, 1);

  auto three = NewServer();
  Await(*channel, 2, 2);
  EXPECT_EQ(Who(*channel, 40)[std::to_string(three->pid())], 20);
}

// While etcd is dead its names stay, and a server that came meanwhile is seen when it is back.
TEST_F(EtcdNames, EtcdIsKilledAndComesBack) {
  auto one = NewServer();
  auto two = NewServer();
  auto channel = NewChannel();
  Await(*channel, 2, 2);
  etcd_.Kill();
  EXPECT_EQ(Who(*channel, 40).size(), 2u);
  etcd_.Start();
  auto three = NewServer();
  Await(*channel, 3, 3);
  EXPECT_EQ(Who(*channel, 60).size(), 3u);
}

// It comes back with nothing: the servers say again that they are there.
TEST_F(EtcdNames, EtcdLosesAll) {
  auto one = NewServer("1");
  auto two = NewServer("1");
  auto channel = NewChannel();
  Await(*channel, 2, 2);
  etcd_.Kill();
  etcd_.LoseData();
  etcd_.Start();
  auto three = NewServer("1");
  Await(*channel, 3, 3);
  EXPECT_EQ(Who(*channel, 60).size(), 3u);
}

TEST_F(EtcdNames, NobodyIsThereYet) {
  auto channel = NewChannel();
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no server is known")));
  auto one = NewServer();
  Await(*channel, 1, 1);
}

TEST_F(EtcdNames, EtcdIsNotThere) {
  etcd_.Kill();
  auto channel = NewChannel();
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("etcd")));
  etcd_.Start();
  auto one = NewServer();
  Await(*channel, 1, 1);
}

TEST(EtcdName, WhatIsNone) {
  EXPECT_EQ(Check(rpc::EtcdNames("storage:7500")), nullptr);
  for (const char* wrong : {"etcd:", "etcd:h:1", "etcd:h:1/", "etcd:h/service"}) {
    EXPECT_THAT(rpc::EtcdNames(wrong), StatusIs(absl::StatusCode::kInvalidArgument)) << wrong;
  }
}

}  // namespace
}  // namespace verbena::testing
