// SPDX-License-Identifier: Apache-2.0
// The picture that `verbena perf --plot` draws.
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process/process.h"
#include "tools/verbena/plot.h"
#include "tools/verbena/plot_axis.h"

namespace verbena::tool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

PlotRun SomeRun(const std::string& name, const std::string& mode, int sizes) {
  PlotRun run;
  run.name = name;
  run.report.set_op("write");
  run.report.set_mode(mode);
  run.report.set_window(16);
  run.report.mutable_connection()->set_device("tcp");
  for (int i = 0; i < sizes; ++i) {
    report::PerfRow* row = run.report.add_rows();
    row->set_size_bytes(1u << i);
    row->mutable_latency()->set_median_us(mode == "lat" ? 3 + i : 0);
    row->mutable_latency()->set_p99_us(mode == "lat" ? 5 + i : 0);
    row->set_gigabytes_per_second(mode == "lat" ? 0 : 0.01 * (i + 1));
    row->set_operations_per_second(1e6 / (i + 1));
  }
  return run;
}

// What an XML parser finds: curves, companions, texts. Fails the test if it is not well-formed.
std::string Parsed(const std::string& svg) {
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string file = std::string(folder == nullptr ? "/tmp" : folder) + "/plot.svg";
  std::ofstream(file) << svg;
  const testing::Finished done = testing::RunToEnd(
      {"/usr/bin/env", "python3", "-c",
       "import sys, xml.etree.ElementTree as tree\n"
       "root = tree.parse(sys.argv[1]).getroot()\n"
       "kinds = [path.get('class') for path in root.iter('{http://www.w3.org/2000/svg}path')]\n"
       "texts = [t.text for t in root.iter('{http://www.w3.org/2000/svg}text')]\n"
       "print(kinds.count('curve'), 'curves', kinds.count('companion'), 'companions')\n"
       "print('|'.join(text or '' for text in texts))\n",
       file});
  EXPECT_EQ(done.status, 0) << done.err << svg;
  return done.out;
}

TEST(Plot, CurvesOfOneKind) {
  EXPECT_THAT(Parsed(Plot({SomeRun("a", "lat", 10), SomeRun("b", "lat", 5)})),
              ::testing::AllOf(HasSubstr("2 curves 2 companions"), HasSubstr("a: write over tcp"),
                               HasSubstr("b: write over tcp"), HasSubstr("median, microseconds"),
                               Not(HasSubstr("GB/s"))));
}

TEST(Plot, APanelForEachKind) {
  const std::string parsed =
      Parsed(Plot({SomeRun("a", "lat", 10), SomeRun("b", "bw", 27), SomeRun("c", "rate", 3)}));
  EXPECT_THAT(parsed, HasSubstr("3 curves 1 companions"));
  EXPECT_THAT(parsed, HasSubstr("GB/s"));
  EXPECT_THAT(parsed, HasSubstr("million operations/s"));
  EXPECT_THAT(parsed, HasSubstr("|16 MiB|"));
}

TEST(Plot, OneSizeAndMany) {
  EXPECT_THAT(Parsed(Plot({SomeRun("", "bw", 1)})), HasSubstr("1 curves"));
  std::vector<PlotRun> runs;
  for (int i = 0; i < 20; ++i) runs.push_back(SomeRun(std::to_string(i), "bw", 27));
  EXPECT_THAT(Parsed(Plot(runs)), HasSubstr("20 curves"));
}

// Names are the user's and devices the system's: they stay text.
TEST(Plot, NamesAreEscaped) {
  PlotRun run = SomeRun("<a&\"b\">]]>\x01", "bw", 2);
  run.report.mutable_connection()->set_device("<script>");
  EXPECT_THAT(Parsed(Plot({run})), HasSubstr("<a&\"b\">]]>?: write over <script>, window 16"));
}

// Reports are files that anybody may have written.
TEST(Plot, NothingToDraw) {
  EXPECT_THAT(Parsed(Plot({SomeRun("a", "bw", 0)})), HasSubstr("0 curves"));
  PlotRun odd = SomeRun("a", "lat", 2);
  for (report::PerfRow& row : *odd.report.mutable_rows()) {
    row.set_size_bytes(0);
    row.mutable_latency()->set_median_us(-1);
  }
  EXPECT_THAT(Parsed(Plot({odd})), HasSubstr("0 curves"));
}

std::vector<std::string> Labels(const PlotAxis& axis) {
  std::vector<std::string> labels;
  for (const PlotTick& tick : axis.ticks()) {
    if (!tick.label.empty()) labels.push_back(tick.label);
  }
  return labels;
}

TEST(PlotAxis, Sizes) {
  const PlotAxis all = PlotAxis::Sizes(1, 64 << 20);
  EXPECT_EQ(all.low(), 1);
  EXPECT_EQ(all.high(), 64 << 20);
  EXPECT_EQ(all.Place(8192), 0.5);
  EXPECT_THAT(Labels(all),
              ElementsAre("1 B", "16 B", "256 B", "4 KiB", "64 KiB", "1 MiB", "16 MiB"));
  EXPECT_THAT(Labels(PlotAxis::Sizes(1024, 1024)), ElementsAre("512 B", "1 KiB", "2 KiB"));
  EXPECT_THAT(Labels(PlotAxis::Sizes(100, 300)), ElementsAre("64 B", "128 B", "256 B", "512 B"));
}

TEST(PlotAxis, Decimal) {
  EXPECT_THAT(Labels(PlotAxis::Decimal(3, 18)), ElementsAre("2", "5", "10", "20"));
  EXPECT_THAT(Labels(PlotAxis::Decimal(2.9, 70000)),
              ElementsAre("10", "100", "1000", "10000", "100000"));
  EXPECT_THAT(Labels(PlotAxis::Decimal(0.02, 0.02)), ElementsAre("0.02", "0.05"));
  EXPECT_THAT(Labels(PlotAxis::Decimal(1, 10)), ElementsAre("1", "2", "5", "10"));
  const PlotAxis axis = PlotAxis::Decimal(1, 10);
  EXPECT_EQ(axis.low(), 1);
  EXPECT_EQ(axis.high(), 10);
}

}  // namespace
}  // namespace verbena::tool
