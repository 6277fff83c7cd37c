// SPDX-License-Identifier: Apache-2.0
// `verbena perf -c`: measures.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "proto/reports.pb.h"
#include "tools/verbena/address.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/files.h"
#include "tools/verbena/perf.h"
#include "tools/verbena/perf_end.h"
#include "tools/verbena/perf_loops.h"
#include "tools/verbena/plot.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/progress.h"
#include "tools/verbena/report.h"
#include "tools/verbena/tcp_facts.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr int64_t kTimeoutSeconds = 10;
constexpr double kLegSeconds = 0.25;  // at most about so long, where time is the measure

PerfRequest RequestOf(const PerfPlan& plan) {
  PerfRequest request;
  request.op = plan.op;
  request.mode = plan.mode;
  request.events = plan.events;
  request.size = plan.sizes.back();
  request.window = plan.window;
  request.queue_pairs = plan.queue_pairs;
  request.session = absl::Uniform<uint64_t>(absl::BitGen());
  return request;
}

// All legs of one size.
struct Measured {
  PerfTally tally;
  uint64_t operations = 0;
  double seconds = 0;
  double ticks = 0;  // that these seconds had
  CpuUsage client;
  CpuUsage server;
};

report::PerfSide SideOf(const CpuUsage& cpu, const TcpFacts& tcp, const Measured& measured,
                        uint64_t payload) {
  const auto operations = static_cast<double>(measured.operations);
  report::PerfSide side;
  side.set_cpu_seconds(cpu.seconds);
  if (payload > 0) side.set_cpu_seconds_per_gigabyte(cpu.seconds * 1e9 / double{1} / payload);
  side.set_cpu_ns_per_operation(cpu.seconds * 1e9 / operations);
  side.set_cycles_per_operation(static_cast<double>(cpu.cycles) / operations);
  side.set_congestion_control(tcp.congestion_control);
  side.set_send_buffer_bytes(tcp.send_buffer);
  side.set_receive_buffer_bytes(tcp.receive_buffer);
  return side;
}

class PerfClient {
 public:
  PerfClient(const PerfOptions& options, const PerfPlan& plan, const CpuMeter& meter,
             report::PerfReport* report)
      : options_(options),
        plan_(plan),
        meter_(meter),
        report_(report),
        progress_(options.progress),
        timeout_(absl::Seconds(options.timeout_s > 0 ? options.timeout_s : kTimeoutSeconds)) {}

  absl::Status Run() {
    Describe();
    absl::StatusOr<Context> context = Context::Open(OpenOptions(options_));
    if (!context.ok()) return context.status();
    context_ = *std::move(context);
    absl::StatusOr<Path> path =
        context_->Resolve(JoinHostPort(options_.host, options_.port), {.deadline = timeout_});
    if (!path.ok()) return AskForServer(path.status(), "perf", options_.host, options_.port);
    *report_->mutable_connection() = ToReport(path->info());
    const PerfPosting posting{.server = false,
                              .list = plan_.post_list,
                              .last_only = plan_.mode == PerfMode::kRate,
                              .swap = plan_.swap};
    absl::StatusOr<std::unique_ptr<PerfEnd>> end =
        PerfEnd::Make(path->device(), RequestOf(plan_), posting, timeout_);
    if (!end.ok()) return end.status();
    end_ = *std::move(end);
    absl::Status status = ConnectAll(*path);
    if (status.ok()) status = CheckPeer();
    if (status.ok()) status = MeasureAll();
    if (absl::IsCancelled(status)) {
      return absl::UnavailableError(
          absl::StrCat(status.message(), " before all was measured; its own messages say why"));
    }
    return status;
  }

 private:
  void Describe() {
    report_->set_op(PerfOpName(plan_.op));
    report_->set_mode(PerfModeName(plan_.mode));
    if (plan_.op == PerfOp::kAtomic) report_->set_atomic(options_.atomic);
    report_->set_window(plan_.window);
    report_->set_post_list(plan_.post_list);
    report_->set_queue_pairs(plan_.queue_pairs);
    report_->set_events(plan_.events);
    report_->set_cpu(static_cast<int32_t>(options_.cpu));
    if (plan_.sizes.size() == 1) report_->set_size_bytes(plan_.sizes[0]);
  }

  absl::Status ConnectAll(Path& path) {
    PerfRequest request = end_->request();
    request.lent = end_->lent();
    for (request.index = 0; request.index < plan_.queue_pairs; ++request.index) {
      QueuePair& qp = end_->qp(request.index);
      ConnectParameters parameters;
      parameters.private_data = EncodePerfRequest(request);
      parameters.deadline = timeout_;
      absl::StatusOr<Accepted> accepted = path.Connect(qp, parameters);
      if (!accepted.ok()) {
        return AskForServer(accepted.status(), "perf", options_.host, options_.port);
      }
      if (request.index > 0) continue;
      *report_->mutable_connection() = ToReport(qp.connection());
      absl::StatusOr<RemoteBuffer> lent = DecodePerfAnswer(accepted->private_data);
      if (!lent.ok()) return lent.status();
      end_->set_peer(*lent);
    }
    return absl::OkStatus();
  }

  absl::Status CheckPeer() {
    const Capabilities with = end_->qp(0).capabilities();
    if (plan_.op == PerfOp::kAtomic && !with.atomics) {
      const ConnectionInfo info = end_->qp(0).connection();
      return absl::UnimplementedError(
          absl::StrCat("the connection with ", info.peer, " over ", Explain(info),
                       " has no atomics: choose another --op, or another --device"));
    }
    if (plan_.op == PerfOp::kSend && plan_.mode != PerfMode::kLatency && !with.rnr) {
      credit_ = std::max<uint32_t>(plan_.window / 2, 1);
    }
    return absl::OkStatus();
  }

  absl::Status MeasureAll() {
    if (!options_.json) PrintPerfHeading(*report_, Explain(end_->qp(0).connection()));
    for (const uint32_t size : plan_.sizes) {
      Measured measured;
      if (absl::Status status = Measure(size, &measured); !status.ok()) return status;
      report::PerfRow* const row = report_->add_rows();
      *row = RowOf(size, measured);
      if (!options_.json) PrintPerfRow(*report_, *row);
      if (options_.hgrm.empty()) continue;
      const std::string text = measured.tally.rounds.Percentiles(TickValue(measured));
      if (absl::Status status = WriteFile(options_.hgrm, text); !status.ok()) return status;
    }
    for (uint32_t i = 0; i < plan_.queue_pairs; ++i) (void)end_->qp(i).Disconnect();
    return absl::OkStatus();
  }

  absl::Status Measure(uint32_t size, Measured* measured) {
    progress_.Start(absl::StrCat(report_->op(), " ", report_->mode(), ", ", Count(size, "byte")));
    Measured warm_up;
    if (plan_.iterations > 0) {
      // Caches, TCP's windows and the hand-over from the service thread settle before it counts.
      const uint64_t rounds = std::clamp<uint64_t>(plan_.iterations / 10, 1, 1000) +
                              uint64_t{plan_.window} * plan_.queue_pairs;
      if (absl::Status status = Leg(size, rounds, &warm_up); !status.ok()) return status;
      return Leg(size, plan_.iterations, measured);
    }
    // The same, until the rate is known well enough to say how many fit into a leg.
    for (uint64_t rounds = 4; warm_up.seconds < std::min(0.02, plan_.seconds / 5); rounds *= 2) {
      if (absl::Status status = Leg(size, rounds, &warm_up); !status.ok()) return status;
    }
    double pace = static_cast<double>(warm_up.operations) / warm_up.seconds;
    while (measured->seconds < plan_.seconds) {
      const double next = std::min(kLegSeconds, plan_.seconds - measured->seconds);
      const auto rounds =
          std::clamp<uint64_t>(static_cast<uint64_t>(pace * next), 1, kMaxPerfRounds);
      if (absl::Status status = Leg(size, rounds, measured); !status.ok()) return status;
      // Not far from the end is the end: a last leg of a few operations would measure its start.
      if (measured->seconds > 0.95 * plan_.seconds) break;
      pace = static_cast<double>(measured->operations) / measured->seconds;
    }
    return absl::OkStatus();
  }

  absl::Status Leg(uint32_t size, uint64_t rounds, Measured* into) {
    end_->Prepare(size);
    const PerfLeg leg{.size = size, .rounds = rounds, .credit = credit_};
    absl::StatusOr<PerfUsage> before = Exchange(leg);
    if (!before.ok()) return before.status();
    auto tick = [&](uint64_t done) {
      progress_.Update(plan_.iterations > 0
                           ? static_cast<double>(done) / static_cast<double>(rounds)
                           : into->seconds / plan_.seconds);
    };
    const CpuUsage cpu = meter_.Read();
    const Clock::time_point start = Clock::now();
    const uint64_t start_ticks = Ticks();
    const bool ok = plan_.mode == PerfMode::kLatency ? PingPong(*end_, leg, into->tally, tick)
                                                     : Flood(*end_, leg, into->tally, tick);
    const uint64_t ticks = Ticks() - start_ticks;
    const Clock::time_point stop = Clock::now();
    if (!ok) return end_->status();
    into->client += meter_.Read() - cpu;
    into->seconds += Seconds(stop - start);
    into->ticks += static_cast<double>(ticks);
    into->operations += rounds;
    absl::StatusOr<PerfUsage> after = Exchange({});
    if (!after.ok()) return after.status();
    into->server += after->cpu - before->cpu;
    server_tcp_ = after->tcp;
    return absl::OkStatus();
  }

  absl::StatusOr<PerfUsage> Exchange(const PerfLeg& leg) {
    if (!end_->Say(EncodePerfLeg(leg))) return end_->status();
    absl::StatusOr<std::string> heard = end_->Hear();
    if (!heard.ok()) return heard.status();
    return DecodePerfUsage(*heard);
  }

  // Microseconds that a tick of the histogram stands for.
  double TickValue(const Measured& measured) const {
    const bool half = plan_.op == PerfOp::kWrite || plan_.op == PerfOp::kSend;
    return measured.seconds * 1e6 / measured.ticks / (half ? 2 : 1);
  }

  report::PerfRow RowOf(uint32_t size, const Measured& measured) {
    const auto operations = static_cast<double>(measured.operations);
    const bool latency = plan_.mode == PerfMode::kLatency;
    report::PerfRow row;
    row.set_size_bytes(size);
    row.set_operations(operations);
    row.set_seconds(measured.seconds);
    row.set_operations_per_second(operations / measured.seconds);
    const uint64_t payload = latency ? 0 : measured.operations * size;
    if (latency) {
      *row.mutable_latency() = ToReport(measured.tally.rounds, TickValue(measured));
    } else {
      const double average = static_cast<double>(payload) / measured.seconds / 1e9;
      const double seconds_a_tick = measured.seconds / measured.ticks;
      row.set_gigabytes_per_second(average);
      // A short run has no slices.
      row.set_peak_gigabytes_per_second(
          std::max(average, size / (measured.tally.fastest * seconds_a_tick) / 1e9));
    }
    const TcpFacts tcp = FactsOf(end_->qp(0).connection());
    *row.mutable_client() = SideOf(measured.client, tcp, measured, payload);
    *row.mutable_server() = SideOf(measured.server, server_tcp_, measured, payload);
    report_->set_congestion_control(tcp.congestion_control);
    if (plan_.sizes.size() == 1) SetSingle(row);
    return row;
  }

  void SetSingle(const report::PerfRow& row) {
    report_->set_iterations(static_cast<uint32_t>(std::min<double>(row.operations(), UINT32_MAX)));
    report_->set_seconds(row.seconds());
    *report_->mutable_latency() = row.latency();
    report_->set_gigabytes_per_second(row.gigabytes_per_second());
    report_->set_operations_per_second(row.operations_per_second());
    report_->set_client_cpu_seconds(row.client().cpu_seconds());
    report_->set_server_cpu_seconds(row.server().cpu_seconds());
  }

  const PerfOptions& options_;
  const PerfPlan& plan_;
  const CpuMeter& meter_;
  report::PerfReport* const report_;
  Progress progress_;
  const absl::Duration timeout_;
  std::optional<Context> context_;
  std::unique_ptr<PerfEnd> end_;  // goes before its context
  uint32_t credit_ = 0;           // PerfLeg::credit
  TcpFacts server_tcp_;
};

}  // namespace

int RunPerfClient(const PerfOptions& options, const PerfPlan& plan, const CpuMeter& meter) {
  report::PerfReport report;
  absl::Status status = CheckDescriptors(ConnectionsOf(plan.queue_pairs));
  // Before minutes of work.
  for (const std::string& file : {options.hgrm, options.plot}) {
    if (status.ok() && !file.empty()) status = WriteFile(file, "");
  }
  if (status.ok()) status = PerfClient(options, plan, meter, &report).Run();
  report.set_error(Printable(status.message()));
  if (options.json) {
    PrintJson(report);
  } else if (status.ok()) {
    PrintPerfClosing(report);
  }
  if (status.ok() && !options.plot.empty()) {
    status = WriteFile(options.plot, Plot({{.name = "", .report = report}}));
  }
  return status.ok() ? kOk : Fail("perf", status);
}

}  // namespace verbena::tool
