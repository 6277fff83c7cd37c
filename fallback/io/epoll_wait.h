// SPDX-License-Identifier: Apache-2.0
// epoll_wait(2) until a point in time.
#pragma once

#include <sys/epoll.h>

#include <span>

#include "fallback/io/io.h"

namespace verbena::io {

Nanos MonotonicNow();  // CLOCK_MONOTONIC

// Sleeps until something is ready or `deadline` has come (0: does not sleep; kNever: no deadline).
// How many events it wrote. Interrupted by a signal, it goes on.
int WaitEpoll(int epoll, std::span<epoll_event> events, Nanos deadline);

}  // namespace verbena::io
