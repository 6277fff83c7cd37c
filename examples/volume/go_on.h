// SPDX-License-Identifier: Apache-2.0
// How coroutines that waited for one another go on.
#pragma once

#include "rpc/task.h"

namespace verbena::volume {

// Lets one go on that waits there. Who goes on may end and let the next one go on, and so for as
// many as there are: each does so after the one before, not inside of it, which would take a stack
// as long as the queue. Any thread.
void GoOn(rpc::Suspension& waits);

}  // namespace verbena::volume
