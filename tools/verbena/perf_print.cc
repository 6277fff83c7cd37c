// SPDX-License-Identifier: Apache-2.0
// `verbena perf`'s result for people.
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/verbena/perf.h"
#include "tools/verbena/text.h"

namespace verbena::tool {
namespace {

constexpr double kMebi = 1 << 20;

std::string Way(const report::PerfReport& report) {
  std::string text;
  if (report.mode() == "lat") {
    const bool whole = report.op() == "read" || report.op() == "atomic";
    text = absl::StrCat("one at a time", whole ? "" : ", half a round trip");
  } else {
    text = absl::StrCat("window ", report.window(), ", ", report.post_list(), " a post");
  }
  if (report.queue_pairs() > 1) absl::StrAppend(&text, ", ", report.queue_pairs(), " queue pairs");
  return absl::StrCat(text, report.events() ? ", waiting for events" : ", polling");
}

std::string Buffers(const char* end, const report::PerfSide& side) {
  return absl::StrCat(end, " ", side.congestion_control(), ", ", side.send_buffer_bytes() >> 10,
                      " KiB send, ", side.receive_buffer_bytes() >> 10, " KiB receive");
}

}  // namespace

void PrintPerfHeading(const report::PerfReport& report, const std::string& why) {
  const char* const mode = report.mode() == "lat"  ? "latency"
                           : report.mode() == "bw" ? "bandwidth"
                                                   : "message rate";
  absl::PrintF("%s%s %s, %s\n", report.op(),
               report.atomic().empty() ? "" : absl::StrCat(" (", report.atomic(), ")"), mode,
               Way(report));
  absl::PrintF("over %s\n", Printable(why));
  if (report.mode() == "lat") {
    absl::PrintF(" %-9s %-11s %11s %11s %15s %11s %13s %9s %9s %11s  %s\n", "#bytes", "#iterations",
                 "t_min[usec]", "t_max[usec]", "t_typical[usec]", "t_avg[usec]", "t_stdev[usec]",
                 "90%[usec]", "99%[usec]", "99.9%[usec]", "CPU[ns/msg] client server");
  } else {
    absl::PrintF(" %-9s %-11s %14s %17s %13s  %s  %s\n", "#bytes", "#iterations", "BW peak[MiB/s]",
                 "BW average[MiB/s]", "MsgRate[Mpps]", "CPU[ns/msg] client server",
                 "CPU[s/GB] client server");
  }
  fflush(stdout);
}

void PrintPerfRow(const report::PerfReport& report, const report::PerfRow& row) {
  const report::Latency& t = row.latency();
  const double client_ns = row.client().cpu_ns_per_operation();
  const double server_ns = row.server().cpu_ns_per_operation();
  if (report.mode() == "lat") {
    absl::PrintF(
        " %-9d %-11.0f %11.2f %11.2f %15.2f %11.2f %13.2f %9.2f %9.2f %11.2f  %18.0f %6.0f\n",
        row.size_bytes(), row.operations(), t.min_us(), t.max_us(), t.median_us(), t.mean_us(),
        t.stdev_us(), t.p90_us(), t.p99_us(), t.p999_us(), client_ns, server_ns);
  } else {
    absl::PrintF(" %-9d %-11.0f %14.2f %17.2f %13.6f  %18.0f %6.0f  %16.3f %6.3f\n",
                 row.size_bytes(), row.operations(), row.peak_gigabytes_per_second() * 1e9 / kMebi,
                 row.gigabytes_per_second() * 1e9 / kMebi, row.operations_per_second() / 1e6,
                 client_ns, server_ns, row.client().cpu_seconds_per_gigabyte(),
                 row.server().cpu_seconds_per_gigabyte());
  }
  fflush(stdout);
}

void PrintPerfClosing(const report::PerfReport& report) {
  if (report.rows().empty()) return;
  const report::PerfRow& last = *report.rows().rbegin();
  if (report.rows_size() == 1 && report.mode() != "lat") {
    absl::PrintF("%.3f GB/s, %.0f operations/s in %.3f s\n", last.gigabytes_per_second(),
                 last.operations_per_second(), last.seconds());
  }
  if (last.client().cycles_per_operation() > 0) {
    absl::PrintF("cycles a message: client %.0f, server %.0f\n",
                 last.client().cycles_per_operation(), last.server().cycles_per_operation());
  }
  if (!last.client().congestion_control().empty()) {
    absl::PrintF("TCP: %s; %s\n", Buffers("client", last.client()),
                 Buffers("server", last.server()));
  }
}

}  // namespace verbena::tool
