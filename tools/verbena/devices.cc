// SPDX-License-Identifier: Apache-2.0
// `verbena devices`: every device, usable or not, with the reason.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/reports.pb.h"
#include "tools/verbena/commands.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/flags.h"
#include "tools/verbena/report.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

std::string DetailAndReason(const DeviceInfo& info) {
  if (info.detail.empty() || info.reason.empty()) return info.detail + info.reason;
  return absl::StrCat(info.detail, "; ", info.reason);
}

}  // namespace

int Devices(int argc, char** argv) {
  bool json = false;
  FlagSet flags({{0, "json", "", "print a DevicesReport as JSON", &json}});
  if (absl::Status status = flags.Parse(argc, argv); !status.ok()) return Misused(argv[0], status);
  if (flags.help_wanted()) {
    printf("verbena devices [--json]\n\nLists every device, usable or not, with the reason.\n\n%s",
           flags.Help().c_str());
    return kOk;
  }

  report::DevicesReport report;
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "PROVIDER", "TRANSPORT", "STATE", "DETAIL/REASON"}};
  for (const DeviceInfo& info : Context::ListDevices()) {
    *report.add_devices() = ToReport(info);
    rows.push_back({info.name, info.provider, info.transport, info.usable ? "usable" : "unusable",
                    DetailAndReason(info)});
  }
  if (json) {
    PrintJson(report);
  } else {
    fputs(Table(rows).c_str(), stdout);
  }
  return kOk;
}

}  // namespace verbena::tool
