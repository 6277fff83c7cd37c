// SPDX-License-Identifier: Apache-2.0
// What rdma_cm has one of in a process. A child after fork begins anew: it inherits locks that
// nobody will release, and lists, perhaps in the middle of a change, of what is its parent's.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_set.h"

namespace verbena::dropin {

class ConnectionId;
class Context;
class Device;
class EventChannel;

struct ManagerState {
  struct Opened {
    Context* context = nullptr;
    ibv_pd* domain = nullptr;
  };

  static ManagerState& Get();
  static void InChild();

  std::mutex mutex;  // ManagerMutex()
  absl::flat_hash_set<ConnectionId*> listeners;
  std::vector<uint32_t> refused;     // queue pairs whose connect is to be tried again
  std::deque<EventChannel*> former;  // destroyed

  std::mutex opening;
  std::map<Device*, Opened> opened;  // they last as long as the process, as with librdmacm
};

// Of channels of ids, of listeners, and of what ids have told. Taken behind a queue pair's
// manager_mutex(); the provider is not called with it held.
inline std::mutex& ManagerMutex() { return ManagerState::Get().mutex; }

}  // namespace verbena::dropin
