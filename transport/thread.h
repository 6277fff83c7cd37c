// SPDX-License-Identifier: Apache-2.0
// For providers: the threads that serve while the application does something else.
#pragma once

#include <pthread.h>

#include "absl/status/status.h"

namespace verbena::provider {

// Runs `main(self)` in a thread of its own, to be joined by the caller. Signals are the
// application's, and for its threads. Faults are not: blocked, they would end the process past its
// crash handler. `name`: at most 15 characters, as ps(1) shows them.
// ResourceExhausted: the system has no thread to give, as a container's pids.max says.
absl::Status StartThread(const char* name, void* (*main)(void*), void* self, pthread_t* thread);

}  // namespace verbena::provider
