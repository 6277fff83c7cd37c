// SPDX-License-Identifier: Apache-2.0
// What a server that dies with SIGKILL ran, beside what its callers were told: at most once, unless
// a method may run twice.
#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>

#include "tests/process/process.h"
#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

std::string Program() {
  const std::string path = "tests/rpc/mortal_server";
  return access(path.c_str(), X_OK) == 0 ? path : "bazel-bin/" + path;
}

std::string Scratch(const std::string& name) {
  const char* folder = std::getenv("TEST_TMPDIR");
  return std::string(folder == nullptr ? "/tmp" : folder) + "/" + name;
}

class Killed : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, Killed, ::testing::Values("begun", "written", "answered"),
                         [](const auto& row) { return std::string(row.param); });

// How often each call was written down: "d7", "e7".
std::map<std::string, int> Written(const std::string& file) {
  std::map<std::string, int> times;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) ++times[line];
  return times;
}

// 64 calls at once, and servers that die in turn. Each call ends; one that was OK ran; one that may
// not run twice did not; one that may is OK in the end.
TEST_P(Killed, NothingRunsTwiceThatMayNot) {
  constexpr int kCalls = 64;
  const std::string file = Scratch("written");
  unlink(file.c_str());
  auto server = std::make_unique<Process>(
      std::vector<std::string>{Program(), file, "127.0.0.1:0", GetParam(), "20"});
  const std::string line = server->LineWith("listening on port ");
  const std::string address = "127.0.0.1:" + line.substr(line.find_last_of(' ') + 1);
  auto channel = ChannelTo(address);
  const Shelf::Client client(*channel);
  Check(channel->WaitUntilConnected(kLongEnough));

  std::vector<ClientContext> contexts(2 * kCalls);
  std::vector<absl::Status> ends(2 * kCalls);
  std::mutex lock;
  std::condition_variable ended;
  int left = 2 * kCalls;
  const auto end = [&](size_t at, const absl::Status& how) {
    const std::lock_guard guard(lock);
    ends[at] = how;
    if (--left == 0) ended.notify_one();
  };
  for (size_t i = 0; i < kCalls; ++i) {
    Order order;
    order.set_message(std::to_string(i));
    client.Do(order, contexts[i],
              [&, i](const absl::StatusOr<Text>& answer) { end(i, answer.status()); });
    const size_t echo = kCalls + i;
    contexts[echo].set_wait_for_ready(true);
    client.Echo(Say(std::to_string(i)), contexts[echo],
                [&, echo](const absl::StatusOr<Text>& answer) { end(echo, answer.status()); });
  }
  EXPECT_EQ(server->Wait(), 128 + SIGKILL);
  // One that dies at its first call, and one that lives.
  server = std::make_unique<Process>(
      std::vector<std::string>{Program(), file, address, GetParam(), "1"});
  EXPECT_EQ(server->Wait(), 128 + SIGKILL);
  server =
      std::make_unique<Process>(std::vector<std::string>{Program(), file, address, "never", "0"});
  {
    std::unique_lock waits(lock);
    ASSERT_TRUE(
        ended.wait_for(waits, absl::ToChronoSeconds(kLongEnough), [&] { return left == 0; }));
  }
  const auto times = Written(file);
  int ok = 0;
  for (size_t i = 0; i < kCalls; ++i) {
    const auto found = times.find("d" + std::to_string(i));
    const int ran = found == times.end() ? 0 : found->second;
    EXPECT_LE(ran, 1) << i;
    if (ends[i].ok()) {
      EXPECT_EQ(ran, 1) << i;
      ++ok;
    } else {
      EXPECT_THAT(ends[i], StatusIs(absl::StatusCode::kUnavailable)) << i;
    }
    EXPECT_THAT(ends[kCalls + i], IsOk()) << i;
    EXPECT_GE(times.at("e" + std::to_string(i)), 1) << i;
  }
  EXPECT_LT(ok, kCalls);
  server->Kill(SIGTERM);
  server->Wait();
}

}  // namespace
}  // namespace verbena::testing
