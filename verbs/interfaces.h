// SPDX-License-Identifier: Apache-2.0
// Which network interface belongs to which RDMA device, by what sysfs says: nothing is opened.
#pragma once

#include <string>
#include <vector>

namespace verbena::verbs {

// The interfaces whose addresses rdma_cm(7) takes for this device's: RoCE names them beside its
// GIDs; of an iWARP device the first GID is the interface's MAC address (`iwarp`). May be empty.
std::vector<std::string> InterfacesOf(const std::string& device, bool iwarp,
                                      const std::string& sysfs = "/sys/class");

}  // namespace verbena::verbs
