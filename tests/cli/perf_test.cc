// SPDX-License-Identifier: Apache-2.0
// `verbena perf` between two processes. The figures are only sane, not judged: machines are busy.
#include <signal.h>

#include <string>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/reports.pb.h"
#include "tests/process/process.h"
#include "tests/cli/tcp_peer.h"
#include "tests/cli/tool.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::Combine;
using ::testing::HasSubstr;
using ::testing::Values;

using Case = std::tuple<std::string, std::string, std::string>;  // op, mode, size
class PerfCases : public ::testing::TestWithParam<Case> {};

TEST_P(PerfCases, Reports) {
  const auto& [op, mode, size] = GetParam();
  Server server("perf");
  const Finished done = RunToEnd(server.Client({"--op", op, "--mode", mode, "--size", size,
                                                "--iterations", "300", "--window", "8", "--json"}));
  ASSERT_EQ(done.status, 0) << done.err << server.process().err();
  report::PerfReport report;
  ParseJson(done.out, &report);
  EXPECT_EQ(report.op(), op);
  EXPECT_EQ(report.mode(), mode);
  EXPECT_EQ(std::to_string(report.size_bytes()), size);
  EXPECT_EQ(report.iterations(), 300u);
  EXPECT_EQ(report.connection().device(), "tcp");
  EXPECT_GT(report.seconds(), 0);
  EXPECT_GT(report.operations_per_second(), 0);
  EXPECT_GE(report.server_cpu_seconds(), 0);
  EXPECT_EQ(report.cpu(), -1);
  if (mode == "lat") {
    EXPECT_EQ(report.window(), 1u);
    EXPECT_GT(report.latency().median_us(), 0);
    EXPECT_LE(report.latency().median_us(), report.latency().p99_us());
    EXPECT_EQ(report.gigabytes_per_second(), 0);
  } else {
    EXPECT_EQ(report.window(), 8u);
    EXPECT_GT(report.gigabytes_per_second(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, PerfCases,
                         Combine(Values("write", "read", "send"), Values("lat", "bw"),
                                 Values("1", "1048576")),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::get<1>(info.param) + "_" +
                                  std::get<2>(info.param);
                         });

TEST(Perf, ForPeople) {
  Server server("perf");
  const Finished latency = RunToEnd(
      server.Client({"--op", "send", "--mode", "lat", "--iterations", "100", "--cpu", "0"}));
  EXPECT_EQ(latency.status, 0) << latency.err;
  EXPECT_THAT(latency.out, AllOf(HasSubstr("send latency, 8 bytes, 100 operations"),
                                 HasSubstr("median "), HasSubstr("over tcp")));
  const Finished bandwidth = RunToEnd(server.Client({"--op", "write", "--iterations", "1000"}));
  EXPECT_EQ(bandwidth.status, 0) << bandwidth.err;
  EXPECT_THAT(bandwidth.out, AllOf(HasSubstr("write bandwidth, 65536 bytes"), HasSubstr("GB/s"),
                                   HasSubstr("CPU: client ")));
}

TEST(Perf, WindowOfOneAndOdd) {
  Server server("perf");
  for (const char* window : {"1", "3", "500"}) {
    for (const char* op : {"write", "read", "send"}) {
      const Finished done = RunToEnd(
          server.Client({"--op", op, "--window", window, "--iterations", "777", "--size", "100"}));
      EXPECT_EQ(done.status, 0) << op << " window " << window << ": " << done.err
                                << server.process().err();
    }
  }
}

TEST(Perf, NoSuchCpu) {
  const Finished done = RunToEnd(Tool({"perf", "-s", "-p", "0", "--cpu", "4095"}));
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, AllOf(HasSubstr("--cpu 4095"), HasSubstr("may use CPU 0")));
}

TEST(Perf, NobodyListens) {
  const BoundSocket bound(false);
  const Finished done =
      RunToEnd(Tool({"perf", "-c", "-a", "127.0.0.1", "-p", bound.port(), "--json"}));
  EXPECT_EQ(done.status, 1);
  report::PerfReport report;
  ParseJson(done.out, &report);
  EXPECT_THAT(report.error(), HasSubstr("nobody listens"));
}

TEST(Perf, ServerKilled) {
  Server server("perf");
  Process client(
      server.Client({"--op", "write", "--size", "1048576", "--iterations", "100000000"}));
  server.process().LineWith("client 127.0.0.1:");
  server.process().Kill(SIGKILL);
  EXPECT_EQ(client.Wait(), 1);
  EXPECT_THAT(client.err(), HasSubstr("127.0.0.1:" + server.port()));
}

// Clients of other protocols, clients that die in the middle of each kind of work, then a good one.
TEST(Perf, ServerSurvives) {
  Server server("perf");
  EXPECT_TRUE(SayAndBeClosed(server.port(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  const Finished ping = RunToEnd(Tool({"ping", "-c", "-a", "127.0.0.1", "-p", server.port()}));
  EXPECT_EQ(ping.status, 1);
  EXPECT_THAT(ping.err, HasSubstr("the other end is not `verbena perf -c`"));
  for (const char* op : {"write", "read", "send"}) {
    for (const char* mode : {"lat", "bw"}) {
      Process killed(server.Client(
          {"--op", op, "--mode", mode, "--size", "65536", "--iterations", "10000000"}));
      server.process().LineWith(std::string(": ") + op + " " + mode + ", ");
      killed.Kill(SIGKILL);
      EXPECT_EQ(killed.Wait(), 128 + SIGKILL);
    }
  }
  const Finished good = RunToEnd(server.Client({"--op", "read", "--iterations", "1000"}));
  EXPECT_EQ(good.status, 0) << good.err << server.process().err();
}

}  // namespace
}  // namespace verbena::testing
