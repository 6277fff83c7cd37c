// SPDX-License-Identifier: Apache-2.0
#include "transport/log.h"

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace verbena {
namespace {

using Modules = std::vector<std::string>;

struct Row {
  const char* name;
  const char* text;
  Level level;
  Modules modules;
  bool complaint;
};

class Filters : public testing::TestWithParam<Row> {};

TEST_P(Filters, Parse) {
  const LogFilter filter = ParseLogFilter(GetParam().text);
  EXPECT_EQ(filter.level, GetParam().level);
  EXPECT_EQ(filter.modules, GetParam().modules);
  EXPECT_EQ(!filter.complaint.empty(), GetParam().complaint) << filter.complaint;
}

INSTANTIATE_TEST_SUITE_P(
    All, Filters,
    testing::Values(
        Row{"Unset", "", Level::kWarn, {}, false}, Row{"Error", "error", Level::kError, {}, false},
        Row{"Warn", "warn", Level::kWarn, {}, false}, Row{"Info", "info", Level::kInfo, {}, false},
        Row{"Debug", "debug", Level::kDebug, {}, false},
        Row{"AnyCase", " Debug ", Level::kDebug, {}, false},
        Row{"Modules", "debug,fallback,connect", Level::kDebug, {"fallback", "connect"}, false},
        Row{"EmptyModules", "info,, connect ,", Level::kInfo, {"connect"}, false},
        Row{"NoLevel", ",connect", Level::kWarn, {"connect"}, false},
        Row{"Unknown", "loud", Level::kWarn, {}, true},
        Row{"Number", "3,connect", Level::kWarn, {"connect"}, true}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(LogFilterTest, ComplaintListsTheLevels) {
  const std::string complaint = ParseLogFilter("loud").complaint;
  for (const char* part : {"VERBENA_LOG=loud", "error", "warn", "info", "debug"}) {
    EXPECT_NE(complaint.find(part), std::string::npos) << complaint;
  }
}

TEST(LogFilterTest, LevelsAreOrdered) {
  const LogFilter info = ParseLogFilter("info");
  EXPECT_TRUE(info.Allows(Level::kError, "x"));
  EXPECT_TRUE(info.Allows(Level::kInfo, "x"));
  EXPECT_FALSE(info.Allows(Level::kDebug, "x"));
  EXPECT_FALSE(ParseLogFilter("error").Allows(Level::kWarn, "x"));
}

// A trace of one module does not hide another's warnings; "error" silences them in all.
TEST(LogFilterTest, OtherModulesKeepTheirWarnings) {
  const LogFilter filter = ParseLogFilter("debug,connect");
  EXPECT_TRUE(filter.Allows(Level::kDebug, "connect"));
  EXPECT_FALSE(filter.Allows(Level::kInfo, "fallback"));
  EXPECT_TRUE(filter.Allows(Level::kWarn, "fallback"));
  EXPECT_FALSE(ParseLogFilter("error,connect").Allows(Level::kWarn, "fallback"));
}

TEST(LogLineTest, IsOneLine) {
  EXPECT_EQ(LogLine(Level::kError, "api", "text"), "verbena E api: text");
  EXPECT_EQ(LogLine(Level::kWarn, "connect", "text"), "verbena W connect: text");
  EXPECT_EQ(LogLine(Level::kInfo, "x", "two\nlines\x1b[0m"), "verbena I x: two lines [0m");
  EXPECT_EQ(LogLine(Level::kDebug, "x", ""), "verbena D x: ");
}

// These start the test program anew, because VERBENA_LOG is read once.
class LogEnvironment : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

// A stranger who calls for ever. Expect: ten lines a second, and no refusal is kept quiet about.
TEST(LogLimit, StrangersWriteTenLinesASecond) {
  LogLimit limit;
  const auto written = [&limit](absl::Duration begin, int calls) {
    int lines = 0;
    for (int i = 0; i < calls; ++i) lines += limit.Take(begin + absl::Milliseconds(i)).has_value();
    return lines;
  };
  EXPECT_EQ(written(absl::Seconds(5), 500), 10);
  EXPECT_EQ(written(absl::Seconds(5) + absl::Milliseconds(500), 500), 0);
  EXPECT_EQ(limit.Take(absl::Seconds(6)), " (990 lines like this were left out)");
  EXPECT_EQ(limit.Take(absl::Seconds(6)), "");
}

TEST_F(LogEnvironment, LinesThatAreNotWantedDoNotCount) {
  EXPECT_EXIT(
      {
        setenv("VERBENA_LOG", "warn", 1);
        LogLimit limit;
        for (int i = 0; i < 100; ++i) VERBENA_LOG_LIMITED(limit, kInfo, "connect", "hidden");
        for (int i = 0; i < 12; ++i) VERBENA_LOG_LIMITED(limit, kWarn, "connect", "x");
        std::exit(0);
      },
      testing::ExitedWithCode(0), "^(verbena W connect: x\n){10}$");
}

TEST_F(LogEnvironment, WarningsByDefault) {
  EXPECT_EXIT(
      {
        unsetenv("VERBENA_LOG");
        Log(Level::kInfo, "connect", "hidden");
        int evaluated = 0;
        VERBENA_LOG(kDebug, "connect", "count ", ++evaluated);
        errno = EIO;  // a caller that logs before it reports errno must still find it
        VERBENA_LOG(kWarn, "connect", "evaluated ", evaluated);
        std::exit(errno == EIO && !LogEnabled(Level::kInfo, "connect") ? 0 : 1);
      },
      testing::ExitedWithCode(0), "^verbena W connect: evaluated 0\n$");
}

TEST_F(LogEnvironment, OneModule) {
  EXPECT_EXIT(
      {
        setenv("VERBENA_LOG", "debug,fallback", 1);
        Log(Level::kDebug, "connect", "hidden");
        Log(Level::kDebug, "fallback", "shown");
        std::exit(0);
      },
      testing::ExitedWithCode(0), "^verbena D fallback: shown\n$");
}

TEST_F(LogEnvironment, UnknownLevelWarnsOnceAndIsReadOnce) {
  EXPECT_EXIT(
      {
        setenv("VERBENA_LOG", "loud", 1);
        Log(Level::kInfo, "connect", "hidden");
        setenv("VERBENA_LOG", "debug", 1);
        Log(Level::kInfo, "connect", "hidden");
        std::exit(0);
      },
      testing::ExitedWithCode(0), "^verbena W log: VERBENA_LOG=loud: no level [^\n]*\n$");
}

}  // namespace
}  // namespace verbena
