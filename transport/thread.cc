// SPDX-License-Identifier: Apache-2.0
#include "transport/thread.h"

#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace verbena::provider {

absl::Status StartThread(const char* name, void* (*main)(void*), void* self, pthread_t* thread) {
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&blocked, fault);
  }
  pthread_sigmask(SIG_SETMASK, &blocked, &before);  // a thread inherits it
  const int error = pthread_create(thread, nullptr, main, self);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("service thread: ", std::strerror(error),
                     ". Raise the limit on threads: `ulimit -u`, TasksMax= in systemd, pids.max of "
                     "a container."));
  }
  pthread_setname_np(*thread, name);
  return absl::OkStatus();
}

}  // namespace verbena::provider
