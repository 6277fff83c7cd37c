// SPDX-License-Identifier: Apache-2.0
#include "dropin/signals.h"

#include <csignal>

namespace verbena::dropin {

bool SignalsInterrupt() {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction action;
    if (sigaction(number, nullptr, &action) != 0) continue;  // the C library's own
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) continue;
    if ((action.sa_flags & SA_RESTART) == 0) return true;
  }
  return false;
}

}  // namespace verbena::dropin
