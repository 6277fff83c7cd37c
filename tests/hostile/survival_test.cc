// SPDX-License-Identifier: Apache-2.0
// The tool's server between strangers, as a process of its own.
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/tcp_peer.h"
#include "tests/cli/tool.h"
#include "tests/hostile/end.h"

namespace verbena::hostile {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Survival, PingServerBetweenStrangers) {
  // A persistent ping server, and callers that say a wrong Request, cut a right one anywhere,
  // connect and say nonsense, ask for memory that is not theirs, or connect and say nothing.
  // Expect: each has its reason on stderr, and a good client pings while and after they are there.
  testing::Server server("ping", {"-P", "--timeout", "1"}, {.environment = {"VERBENA_LOG=warn"}});
  testing::Process& process = server.process();
  const auto ping = [&] {
    const testing::Finished good = testing::RunToEnd(server.Client({"-C", "3", "-V"}));
    EXPECT_EQ(good.status, 0) << good.err;
  };
  ping();

  testing::Caller wrong(server.port());
  wrong.Say(Frame({.revision = 3}));
  EXPECT_TRUE(wrong.HearOut());
  EXPECT_THAT(process.ErrorLineWith(wrong.address()), HasSubstr("revision 3"));

  const std::string request = OwnRequest();
  for (size_t n = 0; n < request.size(); ++n) {
    testing::Caller cut(server.port());
    cut.Say(request.substr(0, n));
  }

  testing::Caller noisy(server.port());
  noisy.Say(request);
  noisy.Hear(20);
  noisy.Say(Text(engine::MakeFpdu(engine::SendHeader(7), engine::Bytes(16))));
  EXPECT_TRUE(noisy.HearOut());
  EXPECT_THAT(process.ErrorLineWith(noisy.address()), HasSubstr("a Send out of sequence"));

  testing::Caller greedy(server.port());
  greedy.Say(request);
  greedy.Hear(20);
  greedy.Say(Text(engine::MakeFpdu(engine::WriteHeader(1, 0), engine::Bytes(16))));
  EXPECT_TRUE(greedy.HearOut());
  EXPECT_THAT(process.ErrorLineWith(greedy.address()), HasSubstr("the key is not registered"));

  testing::Caller silent(server.port());
  silent.Say(request);
  silent.Hear(20);
  ping();
  EXPECT_THAT(process.ErrorLineWith(silent.address()),
              AllOf(HasSubstr("has not answered for 1s"), HasSubstr("--timeout")));
  ping();
}

}  // namespace
}  // namespace verbena::hostile
