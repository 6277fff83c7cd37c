// SPDX-License-Identifier: Apache-2.0
// The command line as such: help, usage errors, `verbena devices`.
#include <string>

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

// Nothing asked: the whole explanation, as an error that a script notices.
TEST(Help, NoArguments) {
  const Finished done = RunToEnd(Tool({}));
  EXPECT_EQ(done.status, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("devices"), HasSubstr("ping -c"), HasSubstr("perf -s")));
  EXPECT_THAT(done.out, IsEmpty());
}

TEST(Help, AskedFor) {
  for (const char* word : {"help", "--help", "-h"}) {
    const Finished done = RunToEnd(Tool({word}));
    EXPECT_EQ(done.status, 0) << word;
    EXPECT_THAT(done.out, HasSubstr("Examples:")) << word;
    EXPECT_THAT(done.err, IsEmpty()) << word;
  }
  EXPECT_EQ(RunToEnd(Tool({"--version"})).status, 0);
}

// Every option that the tool takes stands in its command's help.
TEST(Help, EveryOption) {
  const Finished ping = RunToEnd(Tool({"ping", "--help"}));
  EXPECT_EQ(ping.status, 0);
  for (const char* option :
       {"-s, --server", "-c, --client", "-a, --address ADDR", "-p, --port PORT",
        "-I, --source ADDR", "-C, --count N", "-S, --size BYTES", "-v, --verbose", "-V, --validate",
        "-P, --persistent", "-d, --debug", "--device DEVICE", "--rdma WHEN", "--timeout SECONDS",
        "--fault KIND", "--json", "-h, --help"}) {
    EXPECT_THAT(ping.out, HasSubstr(option));
  }
  const Finished perf = RunToEnd(Tool({"help", "perf"}));  // the other way to ask
  EXPECT_EQ(perf.status, 0);
  for (const char* option : {"-s, --server",
                             "-c, --client",
                             "-a, --address ADDR",
                             "-p, --port PORT",
                             "--op OP",
                             "-A, --atomic KIND",
                             "--mode MODE",
                             "-S, --size BYTES",
                             "-C, --iterations N",
                             "-n, --iters N",
                             "-D, --seconds N",
                             "-t, --window N",
                             "-l, --post-list N",
                             "-q, --qps N",
                             "-e, --events",
                             "--cpu N",
                             "--device DEVICE",
                             "--rdma WHEN",
                             "--timeout SECONDS",
                             "--json",
                             "--hgrm FILE",
                             "--plot FILE.svg",
                             "--progress",
                             "-h, --help",
                             "For users of perftest:"}) {
    EXPECT_THAT(perf.out, HasSubstr(option));
  }
  EXPECT_THAT(RunToEnd(Tool({"devices", "--help"})).out, HasSubstr("--json"));
}

struct Mistake {
  std::vector<std::string> arguments;
  std::string said;
};

TEST(Usage, MistakesAreNamed) {
  const std::vector<Mistake> mistakes = {
      {{"pign"}, "did you mean `ping`?"},
      {{"frobnicate"}, "there is no command `frobnicate`."},
      {{"ping", "-v"}, "-s (server) or -c (client)"},
      {{"ping", "-s", "-c"}, "-s (server) or -c (client)"},
      {{"ping", "-c"}, "-c needs the server's address: -a HOST"},
      {{"ping", "-s", "-q"}, "there is no option -q"},
      {{"ping", "-s", "--frob"}, "there is no option --frob"},
      {{"ping", "-s", "--json=yes"}, "there is no option --json=yes with a value"},
      {{"ping", "-s", "-p"}, "-p needs a value"},
      {{"ping", "-s", "--port"}, "--port needs a value"},
      {{"ping", "-s", "-p", "70000"}, "`70000` is not a number from 0 to 65535"},
      {{"ping", "-c", "-a", "h", "-S", "3"}, "`3` is not a number from 4 to 65536"},
      {{"ping", "-c", "-a", "h", "-S", "12x"}, "`12x` is not a number"},
      {{"ping", "-c", "-a", "h", "--fault", "x"}, "`x` is none of wrong-key, out-of-bounds"},
      {{"ping", "-c", "-a", "h", "extra"}, "`extra` is not an option"},
      {{"ping", "-c", "-a", "h", "-I", "::1", "--device", "verbs"}, "-I chooses a TCP address"},
      {{"perf", "-c", "-a", "h", "--op", "fly"}, "`fly` is none of write, read, send, atomic"},
      {{"perf", "-s", "--json"}, "--json is the client's"},
      {{"devices", "tcp"}, "`tcp` is not an option"},
  };
  for (const Mistake& mistake : mistakes) {
    const Finished done = RunToEnd(Tool(mistake.arguments));
    EXPECT_EQ(done.status, 2) << mistake.said;
    EXPECT_THAT(done.err, AllOf(HasSubstr(mistake.said), HasSubstr("Try `verbena ")));
    EXPECT_THAT(done.out, IsEmpty());
  }
}

TEST(Usage, CommandAlone) {
  // Expect: who asks for nothing gets all of it, with examples, and not for a success.
  for (const char* command : {"ping", "perf"}) {
    const Finished done = RunToEnd(Tool({command}));
    EXPECT_EQ(done.status, 2) << command;
    EXPECT_THAT(done.err, AllOf(HasSubstr("client side"), HasSubstr("Examples:")));
    EXPECT_THAT(done.out, IsEmpty());
  }
}

// TCP needs nothing, so it is always there.
TEST(Devices, Table) {
  const Finished done = RunToEnd(Tool({"devices"}));
  EXPECT_EQ(done.status, 0);
  EXPECT_THAT(done.out, AllOf(HasSubstr("NAME"), HasSubstr("PROVIDER"), HasSubstr("TRANSPORT"),
                              HasSubstr("STATE"), HasSubstr("DETAIL/REASON")));
  EXPECT_THAT(done.out, HasSubstr("\ntcp "));
}

TEST(Devices, Json) {
  const Finished done = RunToEnd(Tool({"devices", "--json"}));
  EXPECT_EQ(done.status, 0);
  report::DevicesReport report;
  ParseJson(done.out, &report);
  bool tcp = false;
  for (const report::Device& device : report.devices()) {
    if (device.name() == "tcp") tcp = device.usable();
    EXPECT_TRUE(device.usable() || !device.reason().empty()) << device.name() << " lacks a reason";
  }
  EXPECT_TRUE(tcp) << done.out;
}

}  // namespace
}  // namespace verbena::testing
