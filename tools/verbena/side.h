// SPDX-License-Identifier: Apache-2.0
// What a command with a server and a client side takes in either case.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "transport/options.h"

namespace verbena::tool {

struct SideOptions {
  explicit SideOptions(int64_t default_port) : port(default_port) {}

  bool server = false;
  bool client = false;
  std::string host;
  int64_t port;
  std::string device;
  std::string rdma;  // empty: the library's default
  int64_t timeout_s = 0;  // 0: the side's own default
};

// What Context::Open is to be called with.
ContextOptions OpenOptions(const SideOptions& options);

// InvalidArgument: not exactly one side, or a client that does not say where to go.
absl::Status CheckSide(const SideOptions& options);

}  // namespace verbena::tool
