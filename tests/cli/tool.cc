// SPDX-License-Identifier: Apache-2.0
#include "tests/cli/tool.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"

namespace verbena::testing {
namespace {

std::string HostOf(const std::vector<std::string>& arguments) {
  auto flag = std::find(arguments.begin(), arguments.end(), "-a");
  return flag == arguments.end() ? "127.0.0.1" : *(flag + 1);
}

std::vector<std::string> ServerArguments(const std::string& command, const std::string& host,
                                         std::vector<std::string> arguments) {
  std::vector<std::string> all = {command, "-s", "-p", "0", "-a", host};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return Tool(std::move(all));
}

}  // namespace

std::vector<std::string> Tool(std::vector<std::string> arguments) {
  // Bazel runs tests in the runfiles' workspace; by hand it is the checkout.
  const char* path = "tools/verbena/verbena";
  arguments.insert(arguments.begin(),
                   access(path, X_OK) == 0 ? path : std::string("bazel-bin/") + path);
  return arguments;
}

Server::Server(const std::string& command, std::vector<std::string> arguments,
               const ProcessOptions& options)
    : command_(command),
      host_(HostOf(arguments)),
      process_(ServerArguments(command, host_, std::move(arguments)), options) {
  const std::string line = process_.LineWith("listening on ");
  port_ = line.substr(line.rfind(':') + 1);
}

std::vector<std::string> Server::Client(std::vector<std::string> arguments) const {
  std::vector<std::string> all = {command_, "-c", "-a", host_, "-p", port_};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return Tool(std::move(all));
}

void ParseJson(const std::string& json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(json, message);
  EXPECT_TRUE(status.ok()) << status.ToString() << " in " << json;
}

}  // namespace verbena::testing
