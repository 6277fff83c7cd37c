// SPDX-License-Identifier: Apache-2.0
// What `verbena perf` does not do: one message each, with object, fact and remedy.
#include <algorithm>
#include <cstdlib>
#include <fstream>
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
using ::testing::IsEmpty;
using ::testing::StartsWith;

struct Mistake {
  std::vector<std::string> arguments;  // after `perf -c -a h`
  std::string said;
};

TEST(PerfRefuses, OptionsThatDoNotGoTogether) {
  const std::vector<Mistake> mistakes = {
      {{"--op", "atomic", "-S", "16"}, "works on 8 bytes: leave --size out"},
      {{"--op", "atomic", "-S", "4-8"}, "works on 8 bytes"},
      {{"-n", "5", "-D", "5"}, "give one"},
      {{"-e", "--mode", "lat"}, "Use --op send"},
      {{"--hgrm", "x"}, "use it with --mode lat and one --size"},
      {{"--hgrm", "x", "--mode", "lat", "-S", "all"}, "one --size"},
      {{"--mode", "lat", "-l", "2"}, "lat posts one at a time"},
      {{"-t", "4", "-l", "5"}, "--post-list is at most --window"},
      {{"-S", "65M"}, "`65M` is no size from 1 to 67108864"},
      {{"-S", "8-4"}, "no range like 64-1M"},
      {{"-q", "0"}, "`0` is not a number from 1 to 16384"},
      {{"-q", "16385"}, "`16385` is not a number"},
      {{"-t", "4097"}, "not a number from 1 to 4096"},
      {{"-D", "0"}, "not a number"},
      {{"--mode", "fast"}, "`fast` is none of lat, bw, rate"},
      {{"-A", "xor"}, "`xor` is none of fetch-add, compare-swap"},
      {{"run.json"}, "`run.json` is not an option; files are for --plot"},
  };
  for (const Mistake& mistake : mistakes) {
    std::vector<std::string> all = {"perf", "-c", "-a", "h"};
    all.insert(all.end(), mistake.arguments.begin(), mistake.arguments.end());
    const Finished done = RunToEnd(Tool(all));
    EXPECT_EQ(done.status, 2) << mistake.said;
    EXPECT_THAT(done.err, AllOf(StartsWith("verbena perf: "), HasSubstr(mistake.said),
                                HasSubstr("\nTry `verbena perf --help`.")));
    EXPECT_THAT(done.out, IsEmpty());
  }
}

// A file that cannot be written is said before minutes of measuring, not after.
TEST(PerfRefuses, FilesThatCannotBeWritten) {
  Server server("perf");
  for (const char* option : {"--hgrm", "--plot"}) {
    const Finished done =
        RunToEnd(server.Client({"--mode", "lat", "-D", "3600", option, "/no/such/folder/file"}));
    EXPECT_EQ(done.status, 1);
    EXPECT_THAT(done.err, HasSubstr("write /no/such/folder/file: No such file or directory"));
  }
}

TEST(PerfRefuses, ReportsThatAreNone) {
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string base = std::string(folder == nullptr ? "/tmp" : folder) + "/";
  auto said = [&](const std::string& name, const std::string& text) {
    if (!text.empty()) std::ofstream(base + name) << text;
    const Finished done = RunToEnd(Tool({"perf", "--plot", base + "x.svg", base + name}));
    EXPECT_EQ(done.status, 1) << name;
    return done.err;
  };
  EXPECT_THAT(said("missing.json", ""), HasSubstr("missing.json: No such file"));
  EXPECT_THAT(said("text.json", "hello"), AllOf(HasSubstr("text.json: it is not JSON"),
                                                HasSubstr("`verbena perf -c ... --json`")));
  EXPECT_THAT(said("empty.json", "{\"op\":\"write\"}"),
              HasSubstr("empty.json: nothing was measured in it"));
  const Finished none = RunToEnd(Tool({"perf", "--plot", base + "x.svg"}));
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.err, HasSubstr("--plot draws files"));
}

// The server has descriptors for some of them only, and says so in its answer.
TEST(PerfRefuses, MoreQueuePairsThanTheServerHasRoomFor) {
  Server server("perf", {}, {.descriptors = 60});
  const Finished done = RunToEnd(server.Client({"-q", "100", "-n", "10", "--json"}));
  EXPECT_EQ(done.status, 1);
  report::PerfReport report;
  ParseJson(done.out, &report);
  EXPECT_THAT(report.error(),
              AllOf(HasSubstr("queue pairs at the server"), HasSubstr("ulimit -n")));
  EXPECT_EQ(std::count(done.err.begin(), done.err.end(), '\n'), 1) << done.err;
}

TEST(PerfRefuses, MoreQueuePairsThanTheClientHasRoomFor) {
  Server server("perf");
  const Finished done = RunToEnd(server.Client({"-q", "100", "-n", "10"}), {.descriptors = 60});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, AllOf(HasSubstr("the limit is 60"), HasSubstr("ulimit -n")));
}

// Queues that no device has.
TEST(PerfRefuses, QueuesOverTheLimit) {
  Server server("perf", {}, {});
  const Finished done =
      RunToEnd(server.Client({"-q", "2000", "-t", "4096", "-n", "10"}), {.descriptors = 20000});
  EXPECT_EQ(done.status, 1);
  EXPECT_THAT(done.err, HasSubstr("completion queue entries"));
}

}  // namespace
}  // namespace verbena::testing
