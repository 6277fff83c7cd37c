// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/preflight.h"

#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace verbena::tool {
namespace {

struct Descriptors {
  int64_t limit = 0;  // RLIMIT_NOFILE, soft; -1: none
  int64_t used = 0;
};

Descriptors Look() {
  Descriptors descriptors;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {-1, 0};
  descriptors.limit = static_cast<int64_t>(limit.rlim_cur);
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) {
    // Not even one more can be opened (or there is no /proc, and nothing is known).
    descriptors.used = errno == EMFILE ? descriptors.limit : 0;
    return descriptors;
  }
  while (readdir(directory) != nullptr) ++descriptors.used;
  closedir(directory);
  descriptors.used -= 3;  // ".", ".." and the directory itself
  return descriptors;
}

}  // namespace

absl::Status CheckDescriptors(int connections) {
  const Descriptors have = Look();
  const int64_t need = kContextDescriptors + int64_t{connections} * kConnectionDescriptors;
  if (have.limit < 0 || have.limit - have.used >= need) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "file descriptors: the limit is ", have.limit, ", ", have.used, " are open, and about ", need,
      " more are needed. Raise it: `ulimit -n 1024`, LimitNOFILE= in systemd, "
      "`--ulimit nofile=1024` for a container."));
}

int ConnectionsThatFit(int wanted) {
  const Descriptors have = Look();
  if (have.limit < 0) return wanted;
  const int64_t room = (have.limit - have.used - kContextDescriptors) / kConnectionDescriptors;
  return static_cast<int>(std::clamp<int64_t>(room, 0, wanted));
}

absl::Status PinToCpu(int64_t cpu) {
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &wanted);
  if (sched_setaffinity(0, sizeof wanted, &wanted) == 0) return absl::OkStatus();
  const int error = errno;
  std::string usable;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) absl::StrAppend(&usable, usable.empty() ? "" : ",", i);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("--cpu ", cpu, ": cannot pin to it (",
                                                 strerror(error), "); this process may use CPU ",
                                                 usable));
}

}  // namespace verbena::tool
