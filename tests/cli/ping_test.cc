// SPDX-License-Identifier: Apache-2.0
// `verbena ping` between two processes, where all is well.
#include <signal.h>

#include <list>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/reports.pb.h"
#include "tests/process/process.h"
#include "tests/cli/tcp_peer.h"
#include "tests/cli/tool.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Three pings, shown at both ends as rping shows them; without -P the server ends with its client.
TEST(Ping, DataIsShownAndCompared) {
  Server server("ping", {"-v"});
  const Finished client = RunToEnd(server.Client({"-C", "3", "-v", "-V"}));
  EXPECT_EQ(client.status, 0) << client.err;
  EXPECT_THAT(client.out, AllOf(HasSubstr("connected to 127.0.0.1:" + server.port() + " over tcp"),
                                HasSubstr("\nping data: rdma-ping-0: ABCDEFGHIJKLMNOPQRSTUVWXYZ["),
                                HasSubstr("\nping data: rdma-ping-1: BCDEFGHIJKLMNOPQRSTUVWXYZ["),
                                HasSubstr("\nping data: rdma-ping-2: CDEFGH"),
                                HasSubstr("3 pings of 64 bytes, data compared: min "),
                                HasSubstr(", median "), HasSubstr(", p99 ")));
  EXPECT_EQ(server.process().Wait(), 0) << server.process().err();
  EXPECT_THAT(
      server.process().out(),
      AllOf(HasSubstr("\nserver ping data: rdma-ping-0: ABCDEFGHIJKLMNOPQRSTUVWXYZ["),
            HasSubstr("\nserver ping data: rdma-ping-2: CDEFGH"), HasSubstr("left after 3 pings")));
}

TEST(Ping, SmallestAndLargest) {
  Server server("ping", {"-P"});
  for (const char* size : {"4", "17", "1500", "65536"}) {
    const Finished client = RunToEnd(server.Client({"-C", "20", "-V", "-S", size}));
    EXPECT_EQ(client.status, 0) << size << ": " << client.err;
  }
}

TEST(Ping, Json) {
  Server server("ping", {"-P", "-v"});
  const Finished client = RunToEnd(server.Client({"-C", "5", "-V", "--json"}));
  EXPECT_EQ(client.status, 0) << client.err;
  report::PingReport report;
  ParseJson(client.out, &report);
  EXPECT_EQ(report.pings(), 5u);
  EXPECT_EQ(report.size_bytes(), 64u);
  EXPECT_TRUE(report.validated());
  EXPECT_EQ(report.error(), "");
  EXPECT_EQ(report.connection().device(), "tcp");
  EXPECT_TRUE(report.connection().own_peer());
  EXPECT_EQ(report.connection().peer(), "127.0.0.1:" + server.port());
  EXPECT_GT(report.connection().candidates_size(), 0);
  EXPECT_GT(report.round().median_us(), 0);
  EXPECT_LE(report.round().median_us(), report.round().p99_us());
}

// A server's report goes to stdout, and nothing else does.
TEST(Ping, ServerJson) {
  Process server(Tool({"ping", "-s", "-P", "-a", "127.0.0.1", "-p", "0", "--json"}));
  const std::string ready = server.ErrorLineWith("listening on ");
  const std::string port = ready.substr(ready.rfind(':') + 1);
  const Finished client = RunToEnd(Tool({"ping", "-c", "-a", "127.0.0.1", "-p", port, "-C", "7"}));
  report::PingReport report;
  ASSERT_EQ(client.status, 0) << client.err;
  ParseJson(server.LineWith("{"), &report);
  EXPECT_EQ(report.pings(), 7u);
  EXPECT_EQ(report.error(), "");
}

TEST(Ping, SeveralClientsAtOnce) {
  Server server("ping", {"-P"});
  std::list<Process> clients;
  for (int i = 0; i < 6; ++i)
    clients.emplace_back(server.Client({"-C", "200", "-V", "-S", "4096"}));
  for (Process& client : clients) EXPECT_EQ(client.Wait(), 0) << client.err();
}

TEST(Ping, OverIpv6) {
  if (!BoundSocket(false, true).ok()) GTEST_SKIP() << "skipped: this machine has no ::1";
  Server server("ping", {"-a", "::1"});
  const Finished client = RunToEnd(server.Client({"-C", "3", "-V"}));
  EXPECT_EQ(client.status, 0) << client.err;
  EXPECT_THAT(client.out, HasSubstr("connected to [::1]:" + server.port()));
  EXPECT_EQ(server.process().Wait(), 0);
}

TEST(Ping, FromASourceAddress) {
  Server server("ping");
  const Finished client = RunToEnd(server.Client({"-C", "1", "-I", "127.0.0.3"}));
  EXPECT_EQ(client.status, 0) << client.err;
  EXPECT_THAT(server.process().LineWith("client "), HasSubstr("client 127.0.0.3:"));
}

// Without -C it goes on until Ctrl-C, then sums up and is content.
TEST(Ping, UntilInterrupted) {
  Server server("ping");
  Process client(server.Client({"-v"}));
  client.LineWith("rdma-ping-20: ");
  client.Kill(SIGINT);
  EXPECT_EQ(client.Wait(), 0) << client.err();
  EXPECT_THAT(client.out(), HasSubstr(" pings of 64 bytes: min "));
  EXPECT_EQ(server.process().Wait(), 0) << server.process().err();
}

TEST(Ping, DebugSaysEachStep) {
  Server server("ping", {"-d"});
  const Finished client = RunToEnd(server.Client({"-C", "1", "-d"}));
  EXPECT_EQ(client.status, 0);
  EXPECT_THAT(client.err, AllOf(HasSubstr("send address 0x"), HasSubstr("received ")));
  EXPECT_EQ(server.process().Wait(), 0);
  EXPECT_THAT(server.process().err(),
              AllOf(HasSubstr("received address 0x"), HasSubstr("send go-ahead")));
}

}  // namespace
}  // namespace verbena::testing
