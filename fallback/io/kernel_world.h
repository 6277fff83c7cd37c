// SPDX-License-Identifier: Apache-2.0
// The real world: kernel sockets, epoll, and one service thread named "verbena" that sleeps in
// the kernel while there is nothing to do.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "fallback/io/world.h"

namespace verbena::io {

// ResourceExhausted: no descriptor or no thread to be had. The thread exists from here on, so that
// Start cannot fail. One service at a time; Stop it before the world dies.
absl::StatusOr<std::unique_ptr<World>> NewKernelWorld();

}  // namespace verbena::io
