// SPDX-License-Identifier: Apache-2.0
// What programs look for beside the libraries, as files: /dev/infiniband and
// /sys/class/infiniband*. They stand in a folder of this user's, the same one for all processes
// that see the same devices; libverbena_paths.so leads programs there.
#pragma once

namespace verbena::dropin {

class DeviceTree {
 public:
  static constexpr int kDoor = 2;  // of ConnectionManager::Door
  // The folder under which they stand; null: none can be made. Any thread.
  static const char* Root();
};

}  // namespace verbena::dropin
