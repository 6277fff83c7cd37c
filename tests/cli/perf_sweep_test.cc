// SPDX-License-Identifier: Apache-2.0
// `verbena perf` over several sizes, several queue pairs, for some time, asleep; and its files.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/reports.pb.h"
#include "tests/cli/tool.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

report::PerfReport Measure(Server& server, std::vector<std::string> arguments) {
  arguments.push_back("--json");
  const Finished done = RunToEnd(server.Client(std::move(arguments)));
  EXPECT_EQ(done.status, 0) << done.err << server.process().err();
  EXPECT_EQ(done.err, "");
  report::PerfReport report;
  ParseJson(done.out, &report);
  return report;
}

std::string Scratch(const std::string& name) {
  const char* folder = std::getenv("TEST_TMPDIR");
  return std::string(folder == nullptr ? "/tmp" : folder) + "/" + name;
}

std::string Slurp(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Each operation at all sizes, over one connection: what landed before never looks like an answer.
TEST(PerfSweep, RowsDouble) {
  Server server("perf");
  for (const char* op : {"write", "read", "send"}) {
    for (const char* mode : {"lat", "bw"}) {
      const report::PerfReport report =
          Measure(server, {"--op", op, "--mode", mode, "-S", "1-100K", "-n", "300"});
      ASSERT_EQ(report.rows_size(), 18) << op << " " << mode;
      for (int i = 0; i < 17; ++i) EXPECT_EQ(report.rows(i).size_bytes(), 1u << i);
      EXPECT_EQ(report.rows(17).size_bytes(), 100u << 10);
      for (const report::PerfRow& row : report.rows()) {
        EXPECT_EQ(row.operations(), 300);
        EXPECT_GT(row.seconds(), 0);
        EXPECT_EQ(row.latency().median_us() > 0, std::string(mode) == "lat");
        EXPECT_EQ(row.gigabytes_per_second() > 0, std::string(mode) == "bw");
      }
      // Which of them would it be?
      EXPECT_EQ(report.size_bytes(), 0u);
      EXPECT_EQ(report.iterations(), 0u);
      EXPECT_EQ(report.operations_per_second(), 0);
    }
  }
}

TEST(PerfSweep, All) {
  Server server("perf");
  const report::PerfReport report = Measure(server, {"--mode", "lat", "-S", "all", "-n", "2"});
  EXPECT_EQ(report.rows_size(), 27);
  EXPECT_EQ(report.rows().rbegin()->size_bytes(), 64u << 20);
}

TEST(PerfSweep, TableHasARowEach) {
  Server server("perf");
  const Finished done = RunToEnd(server.Client({"--mode", "lat", "-S", "2-8", "-n", "10"}));
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("\n 2         10 "), HasSubstr("\n 4         10 "),
                              HasSubstr("\n 8         10 ")));
}

// Time is the measure: about so long, and the count is what fitted.
TEST(Perf, Seconds) {
  Server server("perf");
  for (const char* mode : {"lat", "bw", "rate"}) {
    const report::PerfReport report = Measure(server, {"--mode", mode, "-S", "64", "-D", "1"});
    EXPECT_GT(report.seconds(), 0.9) << mode;
    EXPECT_GT(report.iterations(), 100u) << mode;
  }
}

TEST(Perf, QueuePairs) {
  Server server("perf");
  for (const char* op : {"write", "read", "send", "atomic"}) {
    for (const char* mode : {"lat", "bw", "rate"}) {
      const report::PerfReport report =
          Measure(server, {"--op", op, "--mode", mode, "-q", "5", "-n", "1003", "-t", "9", "-l",
                           std::string(mode) == "lat" ? "1" : "4"});
      EXPECT_EQ(report.queue_pairs(), 5u);
      EXPECT_EQ(report.iterations(), 1003u);
    }
  }
}

// More queue pairs than operations: some have none to do.
TEST(Perf, ManyQueuePairs) {
  Server server("perf");
  EXPECT_EQ(Measure(server, {"--op", "send", "-q", "100", "-n", "30"}).queue_pairs(), 100u);
}

TEST(Perf, Events) {
  Server server("perf");
  for (const std::vector<std::string>& what :
       {std::vector<std::string>{"--op", "send", "--mode", "lat"},
        {"--op", "read", "--mode", "lat"},
        {"--op", "atomic", "--mode", "lat"},
        {"--op", "write", "--mode", "bw", "-S", "1M"},
        {"--op", "send", "--mode", "bw", "-q", "3"},
        {"--op", "read", "--mode", "rate"}}) {
    std::vector<std::string> arguments = {"-e", "-n", "300"};
    arguments.insert(arguments.end(), what.begin(), what.end());
    EXPECT_TRUE(Measure(server, arguments).events());
  }
}

TEST(Perf, ProgressWhenAsked) {
  Server server("perf");
  const Finished silent = RunToEnd(server.Client({"-D", "3", "--mode", "rate"}));
  EXPECT_EQ(silent.err, "");
  const Finished told = RunToEnd(server.Client({"-D", "3", "--mode", "rate", "--progress"}));
  EXPECT_EQ(told.status, 0);
  EXPECT_THAT(told.err, AllOf(StartsWith("write rate, 64 bytes: "), HasSubstr(" %\n")));
}

TEST(Perf, HistogramFile) {
  Server server("perf");
  const std::string file = Scratch("latency.hgrm");
  Measure(server, {"--mode", "lat", "-n", "500", "--hgrm", file});
  EXPECT_THAT(Slurp(file), AllOf(StartsWith("       Value     Percentile TotalCount 1/(1-Perc"),
                                 HasSubstr(" 1.000000000000        500\n"),
                                 HasSubstr("Total count    =          500]")));
}

// One run as it is measured; two saved ones together.
TEST(Perf, PlotFiles) {
  Server server("perf");
  const std::string own = Scratch("own.svg");
  Measure(server, {"--mode", "lat", "-S", "1-8", "-n", "50", "--plot", own});
  EXPECT_THAT(Slurp(own), AllOf(StartsWith("<?xml"), HasSubstr("write over tcp<")));
  std::vector<std::string> command = {"perf", "--plot", Scratch("both.svg")};
  for (const char* op : {"read", "send"}) {
    const Finished done =
        RunToEnd(server.Client({"--op", op, "--mode", "bw", "-S", "1-8", "-n", "50", "--json"}));
    command.push_back(Scratch(std::string(op) + ".json"));
    std::ofstream(command.back()) << done.out;
  }
  const Finished drawn = RunToEnd(Tool(command));
  EXPECT_EQ(drawn.status, 0) << drawn.err;
  EXPECT_THAT(Slurp(command[2]), AllOf(HasSubstr("read: read over tcp, window 16<"),
                                       HasSubstr("send: send over tcp, window 16<")));
}

}  // namespace
}  // namespace verbena::testing
