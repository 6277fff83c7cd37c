// SPDX-License-Identifier: Apache-2.0
// The provider of RDMA devices: libibverbs and librdmacm, loaded at run time. What the list of
// providers names.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/capabilities.h"
#include "transport/provider.h"

namespace verbena::verbs {

// `argument`: the name of a device, or empty for all usable ones. Unless it is null, `passed_over`
// gets those that were not opened; software devices are then not even tried. NotFound: no such
// device, or none that is usable; the message says why for each.
absl::StatusOr<std::unique_ptr<provider::Context>> Open(const std::string& argument,
                                                        std::vector<Candidate>* passed_over);

std::vector<DeviceInfo> ListDevices();

}  // namespace verbena::verbs
