// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/report.h"

#include <cstdio>

#include "google/protobuf/util/json_util.h"
#include "tools/verbena/text.h"

namespace verbena::tool {

report::Device ToReport(const DeviceInfo& info) {
  report::Device device;
  device.set_name(info.name);
  device.set_provider(info.provider);
  device.set_transport(info.transport);
  device.set_usable(info.usable);
  device.set_detail(Printable(info.detail));
  device.set_reason(Printable(info.reason));
  return device;
}

report::Connection ToReport(const ConnectionInfo& info) {
  report::Connection connection;
  connection.set_local(info.local);
  connection.set_peer(info.peer);
  connection.set_own_peer(info.own_peer);
  for (const Candidate& candidate : info.candidates) {
    report::Candidate* row = connection.add_candidates();
    row->set_device(candidate.device);
    row->set_chosen(candidate.chosen);
    row->set_reason(Printable(candidate.reason));
    if (candidate.chosen) connection.set_device(candidate.device);
  }
  return connection;
}

void PrintJson(const google::protobuf::Message& report) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  // Fails only for messages that contain Any, Struct and their like; ours do not.
  (void)google::protobuf::util::MessageToJsonString(report, &json, options);
  json += '\n';
  fputs(json.c_str(), stdout);
}

}  // namespace verbena::tool
