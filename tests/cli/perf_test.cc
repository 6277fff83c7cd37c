// SPDX-License-Identifier: Apache-2.0
// `verbena perf` between two processes. The figures are only sane, not judged: machines are busy.
#include <signal.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/reports.pb.h"
#include "tests/cli/tcp_peer.h"
#include "tests/cli/tool.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::Combine;
using ::testing::HasSubstr;
using ::testing::StartsWith;
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
  EXPECT_GT(report.client_cpu_seconds(), 0);
  EXPECT_GT(report.server_cpu_seconds(), 0);
  EXPECT_EQ(report.cpu(), -1);
  EXPECT_EQ(report.queue_pairs(), 1u);
  EXPECT_EQ(report.atomic(), op == "atomic" ? "fetch-add" : "");
  // The only row says the same, and more.
  ASSERT_EQ(report.rows_size(), 1);
  const report::PerfRow& row = report.rows(0);
  EXPECT_EQ(row.size_bytes(), report.size_bytes());
  EXPECT_EQ(row.operations(), 300);
  EXPECT_EQ(row.seconds(), report.seconds());
  for (const report::PerfSide& side : {row.client(), row.server()}) {
    EXPECT_GT(side.cpu_seconds(), 0);
    EXPECT_DOUBLE_EQ(side.cpu_ns_per_operation(), side.cpu_seconds() * 1e9 / 300);
    EXPECT_EQ(side.congestion_control(), report.congestion_control());  // of one kernel, here
    EXPECT_NE(side.congestion_control(), "");
    EXPECT_GT(side.send_buffer_bytes(), 0u);
    EXPECT_GT(side.receive_buffer_bytes(), 0u);
  }
  if (mode == "lat") {
    EXPECT_EQ(report.window(), 1u);
    EXPECT_GT(report.latency().median_us(), 0);
    const report::Latency& time = row.latency();
    EXPECT_GT(time.min_us(), 0);
    EXPECT_LE(time.min_us(), time.median_us());
    EXPECT_LE(time.median_us(), time.p90_us());
    EXPECT_LE(time.p90_us(), time.p99_us());
    EXPECT_LE(time.p99_us(), time.p999_us());
    EXPECT_LE(time.p999_us(), time.max_us());
    EXPECT_LT(time.mean_us(), time.max_us());
    EXPECT_EQ(report.gigabytes_per_second(), 0);
    EXPECT_EQ(report.post_list(), 1u);
  } else {
    EXPECT_EQ(report.window(), 8u);
    EXPECT_GT(report.gigabytes_per_second(), 0);
    EXPECT_GE(row.peak_gigabytes_per_second(), row.gigabytes_per_second());
    EXPECT_GT(row.client().cpu_seconds_per_gigabyte(), 0);
    EXPECT_GT(row.server().cpu_seconds_per_gigabyte(), 0);
    EXPECT_EQ(report.latency().max_us(), 0);
    EXPECT_EQ(report.post_list(), 2u);
  }
}

INSTANTIATE_TEST_SUITE_P(All, PerfCases,
                         Combine(Values("write", "read", "send"), Values("lat", "bw", "rate"),
                                 Values("1", "1048576")),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::get<1>(info.param) + "_" +
                                  std::get<2>(info.param);
                         });

INSTANTIATE_TEST_SUITE_P(Atomic, PerfCases,
                         Combine(Values("atomic"), Values("lat", "bw", "rate"), Values("8")),
                         [](const auto& info) { return std::get<1>(info.param); });

TEST(Perf, CompareSwap) {
  Server server("perf");
  const Finished done = RunToEnd(server.Client(
      {"--op", "atomic", "-A", "compare-swap", "--mode", "lat", "-n", "100", "--json"}));
  ASSERT_EQ(done.status, 0) << done.err << server.process().err();
  report::PerfReport report;
  ParseJson(done.out, &report);
  EXPECT_EQ(report.atomic(), "compare-swap");
  EXPECT_EQ(report.size_bytes(), 8u);
}

// perftest's columns, and a line for who wants one figure only.
TEST(Perf, ForPeople) {
  Server server("perf");
  const Finished latency = RunToEnd(
      server.Client({"--op", "send", "--mode", "lat", "--iterations", "100", "--cpu", "0"}));
  EXPECT_EQ(latency.status, 0) << latency.err;
  EXPECT_THAT(latency.out,
              AllOf(HasSubstr("send latency, one at a time, half a round trip, polling\nover tcp "),
                    HasSubstr("t_typical[usec]"), HasSubstr("\n 8         100 "),
                    HasSubstr("\nTCP: client ")));
  const Finished bandwidth = RunToEnd(server.Client({"--op", "write", "--iterations", "1000"}));
  EXPECT_EQ(bandwidth.status, 0) << bandwidth.err;
  EXPECT_THAT(bandwidth.out, AllOf(HasSubstr("write bandwidth, window 16, 4 a post, polling\n"),
                                   HasSubstr("BW average[MiB/s]"), HasSubstr("\n 65536     1000 "),
                                   HasSubstr(" GB/s, "), HasSubstr("KiB send")));
}

TEST(Perf, WindowOfOneAndOdd) {
  Server server("perf");
  for (const char* window : {"1", "3", "500"}) {
    for (const char* op : {"write", "read", "send", "atomic"}) {
      const Finished done =
          RunToEnd(server.Client({"--op", op, "--window", window, "--iterations", "777"}));
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

// In the middle of each kind of work; one complaint, with whom.
TEST(Perf, ServerKilled) {
  for (const char* op : {"write", "read", "send", "atomic"}) {
    for (const std::vector<std::string>& how :
         {std::vector<std::string>{"--mode", "lat"}, {"--mode", "bw", "-q", "3"}}) {
      Server server("perf");
      std::vector<std::string> arguments = {"--op", op, "--size", "8", "-n", "100000000"};
      arguments.insert(arguments.end(), how.begin(), how.end());
      Process client(server.Client(arguments));
      client.LineWith("#bytes");
      server.process().Kill(SIGKILL);
      EXPECT_EQ(client.Wait(), 1) << op;
      EXPECT_THAT(client.err(),
                  AllOf(StartsWith("verbena perf: "), HasSubstr("127.0.0.1:" + server.port())));
      EXPECT_EQ(std::count(client.err().begin(), client.err().end(), '\n'), 1) << client.err();
    }
  }
}

// Asleep on its channel, too.
TEST(Perf, ServerKilledWhileAllSleep) {
  Server server("perf");
  Process client(server.Client({"--op", "send", "--mode", "lat", "-e", "-n", "100000000"}));
  client.LineWith("#bytes");
  server.process().Kill(SIGKILL);
  EXPECT_EQ(client.Wait(), 1);
  EXPECT_THAT(client.err(), HasSubstr("127.0.0.1:" + server.port()));
}

TEST(Perf, ServerStopped) {
  Server server("perf");
  Process client(server.Client({"--op", "read", "--timeout", "1", "-n", "100000000"}));
  client.LineWith("#bytes");
  server.process().Kill(SIGSTOP);
  EXPECT_EQ(client.Wait(), 1);
  EXPECT_THAT(client.err(), AllOf(HasSubstr("nothing from the peer"), HasSubstr("--timeout")));
}

// Clients of other protocols, clients that die in the middle of each kind of work, then a good one.
TEST(Perf, ServerSurvives) {
  Server server("perf");
  EXPECT_TRUE(SayAndBeClosed(server.port(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  const Finished ping = RunToEnd(Tool({"ping", "-c", "-a", "127.0.0.1", "-p", server.port()}));
  EXPECT_EQ(ping.status, 1);
  EXPECT_THAT(ping.err, HasSubstr("the other end is not `verbena perf -c`"));
  for (const char* op : {"write", "read", "send", "atomic"}) {
    for (const char* mode : {"lat", "bw", "rate"}) {
      Process killed(
          server.Client({"--op", op, "--mode", mode, "--size", "8", "--iterations", "100000000"}));
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
