// SPDX-License-Identifier: Apache-2.0
// The `verbena` under test, its servers, and its reports.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "tests/process/process.h"

namespace verbena::testing {

// argv of `verbena` with these arguments.
std::vector<std::string> Tool(std::vector<std::string> arguments);

// `verbena COMMAND -s -p 0 …`, ready: it has said where it listens.
class Server {
 public:
  // On 127.0.0.1 unless `arguments` hold an -a.
  explicit Server(const std::string& command, std::vector<std::string> arguments = {},
                  const ProcessOptions& options = {});

  const std::string& port() const { return port_; }
  Process& process() { return process_; }

  // argv of a client of it.
  std::vector<std::string> Client(std::vector<std::string> arguments) const;

 private:
  const std::string command_;
  const std::string host_;
  Process process_;
  std::string port_;
};

// Reads one line of JSON; the test fails if it holds a field that `message` lacks, or no JSON.
void ParseJson(const std::string& json, google::protobuf::Message* message);

}  // namespace verbena::testing
