// SPDX-License-Identifier: Apache-2.0
// `verbena perf -c`: says what is measured, and measures it.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/reports.pb.h"
#include "tools/verbena/address.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/perf.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/report.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr int64_t kTimeoutSeconds = 10;
constexpr uint32_t kLatencyIterations = 10'000;
constexpr int64_t kBandwidthBytes = 1'000'000'000;

PerfRequest RequestFrom(const PerfOptions& options) {
  PerfRequest request;
  request.op = options.op == "write"  ? PerfOp::kWrite
               : options.op == "read" ? PerfOp::kRead
                                      : PerfOp::kSend;
  request.mode = options.mode == "lat" ? PerfMode::kLatency : PerfMode::kBandwidth;
  const bool latency = request.mode == PerfMode::kLatency;
  request.size = static_cast<uint32_t>(options.size > 0 ? options.size : latency ? 8 : 65536);
  request.window = latency ? 1 : static_cast<uint32_t>(options.window);
  return request;
}

uint32_t Iterations(const PerfOptions& options, const PerfRequest& request) {
  if (options.iterations > 0) return static_cast<uint32_t>(options.iterations);
  if (request.mode == PerfMode::kLatency) return kLatencyIterations;
  return static_cast<uint32_t>(std::clamp<int64_t>(kBandwidthBytes / request.size, 100, 1'000'000));
}

// Caches, TCP's windows and the hand-over from the service thread settle before it counts.
uint32_t WarmUp(const PerfRequest& request, uint32_t iterations) {
  return std::clamp<uint32_t>(iterations / 10, 1, 1000) + request.window;
}

std::string CongestionControl() {
  std::string name;
  std::ifstream("/proc/sys/net/ipv4/tcp_congestion_control") >> name;
  return name;
}

class PerfClient {
 public:
  PerfClient(const PerfOptions& options, report::PerfReport* report)
      : options_(options),
        report_(report),
        timeout_(absl::Seconds(options.timeout_s > 0 ? options.timeout_s : kTimeoutSeconds)) {}

  absl::Status Run() {
    PerfRequest request = RequestFrom(options_);
    const uint32_t iterations = Iterations(options_, request);
    const uint32_t warm_up = WarmUp(request, iterations);
    request.rounds = warm_up + iterations;
    Describe(request, iterations);

    absl::StatusOr<Context> context = Context::Open(OpenOptions(options_));
    if (!context.ok()) return context.status();
    absl::StatusOr<Path> path =
        context->Resolve(JoinHostPort(options_.host, options_.port), {.deadline = timeout_});
    if (!path.ok()) return AskForServer(path.status(), "perf", options_.host, options_.port);
    *report_->mutable_connection() = ToReport(path->info());
    absl::StatusOr<PerfEnd> end = PerfEnd::Make(path->device(), request, timeout_);
    if (!end.ok()) return end.status();
    if (absl::Status status = Connect(*path, *end); !status.ok()) return status;
    absl::Status status = Measure(*end, warm_up, iterations);
    if (absl::IsCancelled(status)) {
      return absl::UnavailableError(
          absl::StrCat(status.message(), " before all was measured; its own messages say why"));
    }
    return status;
  }

 private:
  void Describe(const PerfRequest& request, uint32_t iterations) {
    report_->set_op(PerfOpName(request.op));
    report_->set_mode(PerfModeName(request.mode));
    report_->set_size_bytes(request.size);
    report_->set_window(request.window);
    report_->set_iterations(iterations);
    report_->set_cpu(static_cast<int32_t>(options_.cpu));
    report_->set_congestion_control(CongestionControl());
  }

  absl::Status Connect(Path& path, PerfEnd& end) {
    PerfRequest request = end.request();
    request.lent = end.lent();
    ConnectParameters parameters;
    parameters.private_data = EncodePerfRequest(request);
    parameters.deadline = timeout_;
    absl::StatusOr<Accepted> accepted = path.Connect(end.link().qp(), parameters);
    if (!accepted.ok()) {
      return AskForServer(accepted.status(), "perf", options_.host, options_.port);
    }
    *report_->mutable_connection() = ToReport(end.link().qp().connection());
    absl::StatusOr<RemoteBuffer> lent = DecodePerfAnswer(accepted->private_data);
    if (!lent.ok()) return lent.status();
    end.set_peer(*lent);
    return absl::OkStatus();
  }

  absl::Status Measure(PerfEnd& end, uint32_t warm_up, uint32_t iterations) {
    Spinner spinner(end.link(), absl::ToChronoNanoseconds(timeout_));
    const bool latency = end.request().mode == PerfMode::kLatency;
    Samples discarded;
    Samples samples;
    samples.Reserve(latency ? iterations : 0);
    auto rounds = [&](uint32_t first, uint32_t count, Samples* into) {
      return latency ? LatencyRounds(end, spinner, first, count, into)
                     : BandwidthRounds(end, spinner, count);
    };
    absl::Status status = rounds(0, warm_up, &discarded);
    if (!status.ok()) return status;
    const double cpu = CpuSeconds();
    const Clock::time_point start = Clock::now();
    status = rounds(warm_up, iterations, &samples);
    const double seconds = Seconds(Clock::now() - start);
    if (!status.ok()) return status;
    report_->set_client_cpu_seconds(CpuSeconds() - cpu);
    report_->set_seconds(seconds);
    report_->set_operations_per_second(iterations / seconds);
    if (latency) {
      const int halves = end.request().op == PerfOp::kRead ? 1 : 2;
      *report_->mutable_latency() = samples.Summarise(halves);
    } else {
      report_->set_gigabytes_per_second(double{1} * end.request().size * iterations / seconds /
                                        1e9);
    }
    return Finish(end, spinner);
  }

  // Tells the server that this was all, and hears what it cost there.
  absl::Status Finish(PerfEnd& end, Spinner& spinner) {
    const uint64_t receives = spinner.receives();
    if (absl::Status status = end.SendControl(""); !status.ok()) return status;
    while (spinner.receives() == receives) {
      if (!spinner.Turn()) return spinner.status();
    }
    report_->set_server_cpu_seconds(DecodePerfResult(end.LandedControl()).cpu_seconds);
    return end.link().qp().Disconnect();
  }

  const PerfOptions& options_;
  report::PerfReport* const report_;
  const absl::Duration timeout_;
};

void PrintResult(const report::PerfReport& report, const std::string& why) {
  const report::Latency& time = report.latency();
  const std::string what = Count(report.size_bytes(), "byte");
  if (report.mode() == "lat") {
    absl::PrintF(
        "%s latency, %s, %d operations%s: min %.2f µs, median %.2f µs, p99 %.2f µs, "
        "max %.2f µs\n",
        report.op(), what, report.iterations(), report.op() == "read" ? "" : " (half a round trip)",
        time.min_us(), time.median_us(), time.p99_us(), time.max_us());
  } else {
    absl::PrintF("%s bandwidth, %s, %d operations, window %d: %.3f GB/s, %.0f operations/s\n",
                 report.op(), what, report.iterations(), report.window(),
                 report.gigabytes_per_second(), report.operations_per_second());
  }
  absl::PrintF("over %s; congestion control %s; %.3f s, CPU: client %.3f s, server %.3f s\n", why,
               report.congestion_control(), report.seconds(), report.client_cpu_seconds(),
               report.server_cpu_seconds());
}

std::string Why(const report::Connection& connection) {
  ConnectionInfo info;
  for (const report::Candidate& row : connection.candidates()) {
    info.candidates.push_back({row.device(), row.chosen(), row.reason()});
  }
  return Explain(info);
}

}  // namespace

int RunPerfClient(const PerfOptions& options) {
  report::PerfReport report;
  absl::Status status = CheckDescriptors(1);
  if (status.ok()) status = PerfClient(options, &report).Run();
  report.set_error(Printable(status.message()));
  if (options.json) {
    PrintJson(report);
  } else if (status.ok()) {
    PrintResult(report, Why(report.connection()));
  }
  return status.ok() ? kOk : Fail("perf", status);
}

}  // namespace verbena::tool
