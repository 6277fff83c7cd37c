// SPDX-License-Identifier: Apache-2.0
// What can go wrong with `verbena ping`, each for real: the message says what and what to do, the
// exit status is 1, and a server outlives it all.
#include <signal.h>

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/reports.pb.h"
#include "tests/cli/tcp_peer.h"
#include "tests/cli/tool.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// Every byte value, and none of any protocol's magic words.
std::string Noise(size_t size) {
  std::string noise;
  for (uint32_t state = 1; noise.size() < size;) {
    state = state * 1664525 + 1013904223;
    noise += static_cast<char>(state >> 24);
  }
  return noise;
}

Finished PingTo(const std::string& port, std::vector<std::string> more = {}) {
  std::vector<std::string> all = {"ping", "-c", "-a", "127.0.0.1", "-p", port, "-C", "1"};
  all.insert(all.end(), more.begin(), more.end());
  return RunToEnd(Tool(std::move(all)));
}

TEST(Faults, NobodyListens) {
  const BoundSocket bound(false);  // so that nobody else takes the port meanwhile
  const Finished done = PingTo(bound.port());
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err,
              AllOf(HasSubstr("127.0.0.1:" + bound.port()), HasSubstr("nobody listens"),
                    HasSubstr("refused"),
                    HasSubstr("Is `verbena ping -s -p " + bound.port() + "` running on")));
}

TEST(Faults, JsonCarriesTheError) {
  const BoundSocket bound(false);
  const Finished done = PingTo(bound.port(), {"--json"});
  EXPECT_EQ(done.status, 1);
  report::PingReport report;
  ParseJson(done.out, &report);
  EXPECT_THAT(report.error(), HasSubstr("nobody listens"));
  EXPECT_EQ(report.pings(), 0u);
}

// The wrong port, with a web server on it.
TEST(Faults, WebServer) {
  const WrongServer web("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  const Finished done = PingTo(web.port());
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, AllOf(HasSubstr("127.0.0.1:" + web.port()), HasSubstr("MPA")));
}

TEST(Faults, RandomBytes) {
  const WrongServer noise(Noise(4000));
  const Finished done = PingTo(noise.port());
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, AllOf(HasSubstr("127.0.0.1:" + noise.port()), HasSubstr("MPA")));
}

// Whoever listens there hangs up at once, or says nothing.
TEST(Faults, ClosedAndSilent) {
  const WrongServer closing("");
  EXPECT_EQ(PingTo(closing.port()).status, 1);
  const WrongServer silent("", true);
  const Finished done = PingTo(silent.port(), {"--timeout", "1"});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("127.0.0.1:" + silent.port()));
}

TEST(Faults, NameDoesNotResolve) {
  const Finished done = RunToEnd(Tool({"ping", "-c", "-a", "no-such-host.invalid", "-C", "1"}));
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("no-such-host.invalid"));
}

TEST(Faults, NoSuchDevice) {
  const Finished done = PingTo("1", {"--device", "verbs:nonesuch0"});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("nonesuch0"));
}

TEST(Faults, RdmaRequiredAndNoneThere) {
  const Finished done = PingTo("1", {"--device", "tcp", "--rdma", "required"});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("RDMA is required, and there is no RDMA device"));
}

TEST(Faults, AddressInUse) {
  const BoundSocket other(true);
  const Finished taken = RunToEnd(Tool({"ping", "-s", "-a", "127.0.0.1", "-p", other.port()}));
  EXPECT_EQ(taken.status, 1);
  EXPECT_THAT(taken.err, AllOf(HasSubstr("127.0.0.1:" + other.port()), HasSubstr("in use")));
  // Another verbena shares no port by accident either.
  Server server("ping");
  const Finished twice = RunToEnd(Tool({"ping", "-s", "-a", "127.0.0.1", "-p", server.port()}));
  EXPECT_EQ(twice.status, 1);
  EXPECT_THAT(twice.err, HasSubstr("in use"));
}

TEST(Faults, AddressIsNotOurs) {
  const Finished done = RunToEnd(Tool({"ping", "-s", "-a", "192.0.2.1", "-p", "0"}));
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("192.0.2.1"));
}

TEST(Faults, PrivilegedPort) {
  int first_free_for_all = 1024;
  std::ifstream("/proc/sys/net/ipv4/ip_unprivileged_port_start") >> first_free_for_all;
  if (first_free_for_all <= 80) {
    GTEST_SKIP() << "skipped: here every user may bind port 80 "
                    "(net.ipv4.ip_unprivileged_port_start)";
  }
  const Finished done =
      RunToEnd(Tool({"ping", "-s", "-a", "127.0.0.1", "-p", "80"}), {.may_bind_low_ports = false});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err,
              AllOf(HasSubstr("127.0.0.1:80"), AnyOf(HasSubstr("privilege"), HasSubstr("permi"))));
}

// Too few descriptors: said before anything is tried, with the limit and the remedy.
TEST(Faults, DescriptorsExhausted) {
  Server server("ping", {"-P"});
  for (const std::vector<std::string>& argv :
       {server.Client({"-C", "1"}), Tool({"ping", "-s", "-a", "127.0.0.1", "-p", "0"}),
        Tool({"perf", "-s", "-a", "127.0.0.1", "-p", "0"})}) {
    const Finished done = RunToEnd(argv, {.descriptors = 10});
    EXPECT_EQ(done.status, 1);
    EXPECT_THAT(done.err, AllOf(HasSubstr("the limit is 10"), HasSubstr("ulimit -n")));
  }
}

// A server with room for one client refuses the second, who learns why, and takes the third.
TEST(Faults, ServerIsFull) {
  Server server("ping", {"-P"}, {.descriptors = 3 + 16 + 4});
  Process first(server.Client({"-v"}));
  first.LineWith("rdma-ping-0: ");
  const Finished second = RunToEnd(server.Client({"-C", "1"}));
  EXPECT_EQ(second.status, 1);
  EXPECT_THAT(second.err, HasSubstr("busy: 1 client connected, no room for more"));
  first.Kill(SIGINT);
  EXPECT_EQ(first.Wait(), 0);
  server.process().LineWith(" left after ");
  // Its line comes a moment before its place is free.
  Finished third;
  do {
    third = RunToEnd(server.Client({"-C", "1"}));
  } while (third.err.find("busy") != std::string::npos);
  EXPECT_EQ(third.status, 0) << third.err;
}

TEST(Faults, ServerKilled) {
  Server server("ping");
  Process client(server.Client({"-v", "-S", "65536"}));
  client.LineWith("rdma-ping-5: ");
  server.process().Kill(SIGKILL);
  EXPECT_EQ(client.Wait(), 1);
  EXPECT_THAT(client.err(), HasSubstr("127.0.0.1:" + server.port()));
}

TEST(Faults, ClientKilled) {
  Server server("ping");
  Process client(server.Client({"-v", "-S", "65536"}));
  client.LineWith("rdma-ping-5: ");
  client.Kill(SIGKILL);
  EXPECT_EQ(server.process().Wait(), 1);
  EXPECT_THAT(server.process().err(), HasSubstr("127.0.0.1:"));
}

// The server stops answering but its connection stands.
TEST(Faults, ServerStopped) {
  Server server("ping");
  Process client(server.Client({"-v", "--timeout", "1"}));
  client.LineWith("rdma-ping-5: ");
  server.process().Kill(SIGSTOP);
  EXPECT_EQ(client.Wait(), 1);
  EXPECT_THAT(client.err(), AllOf(HasSubstr("has not answered"), HasSubstr("--timeout")));
}

// The server's read is refused; both ends say so, each from its side.
TEST(Faults, WrongKey) {
  Server server("ping");
  const Finished client = RunToEnd(server.Client({"-C", "1", "--fault", "wrong-key"}));
  EXPECT_EQ(client.status, 1);
  EXPECT_THAT(client.err, HasSubstr("not registered"));
  EXPECT_EQ(server.process().Wait(), 1);
  EXPECT_THAT(server.process().err(),
              AllOf(HasSubstr("reading its memory failed"), HasSubstr("REM_ACCESS_ERR"),
                    HasSubstr("the key is not registered")));
}

TEST(Faults, OutOfBounds) {
  Server server("ping");
  const Finished client =
      RunToEnd(server.Client({"-C", "1", "--fault", "out-of-bounds", "--json"}));
  EXPECT_EQ(client.status, 1);
  report::PingReport report;
  ParseJson(client.out, &report);
  EXPECT_EQ(report.fault(), "out-of-bounds");
  EXPECT_THAT(report.error(), HasSubstr("out of the region's bounds"));
  EXPECT_EQ(server.process().Wait(), 1);
  EXPECT_THAT(server.process().err(), HasSubstr("REM_ACCESS_ERR"));
}

// One persistent server and every bad client in turn; then a good one.
TEST(Faults, ServerSurvives) {
  Server server("ping", {"-P"});
  EXPECT_TRUE(SayAndBeClosed(server.port(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_TRUE(SayAndBeClosed(server.port(), Noise(4000)));
  EXPECT_EQ(RunToEnd(server.Client({"-C", "1", "--fault", "wrong-key"})).status, 1);
  EXPECT_EQ(RunToEnd(server.Client({"-C", "1", "--fault", "out-of-bounds"})).status, 1);
  {
    Process killed(server.Client({"-v", "-S", "65536"}));
    killed.LineWith("rdma-ping-5: ");
    killed.Kill(SIGKILL);
    EXPECT_EQ(killed.Wait(), 128 + SIGKILL);
  }
  // perf asks for what a ping server does not have.
  const Finished perf = RunToEnd(Tool({"perf", "-c", "-a", "127.0.0.1", "-p", server.port()}));
  EXPECT_EQ(perf.status, 1);
  EXPECT_THAT(perf.err, HasSubstr("the other end is not `verbena perf -s`"));
  // One that is connected and silent keeps nobody out.
  Process silent(server.Client({"-v"}));
  silent.LineWith("rdma-ping-0: ");
  silent.Kill(SIGSTOP);

  const Finished good = RunToEnd(server.Client({"-C", "10", "-V"}));
  EXPECT_EQ(good.status, 0) << good.err << server.process().err();
}

}  // namespace
}  // namespace verbena::testing
