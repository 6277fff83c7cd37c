// SPDX-License-Identifier: Apache-2.0
// Turning what the library says about devices and connections into reports, and reports into text.
#pragma once

#include "google/protobuf/message.h"
#include "proto/reports.pb.h"
#include "transport/capabilities.h"
#include "transport/options.h"

namespace verbena::tool {

report::Device ToReport(const DeviceInfo& info);
report::Connection ToReport(const ConnectionInfo& info);

// One line of JSON on stdout, every field present.
void PrintJson(const google::protobuf::Message& report);

}  // namespace verbena::tool
