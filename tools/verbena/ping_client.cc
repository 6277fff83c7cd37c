// SPDX-License-Identifier: Apache-2.0
// `verbena ping -c`: lends memory to the server, round by round.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/reports.pb.h"
#include "tools/verbena/address.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/histogram.h"
#include "tools/verbena/ping.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/report.h"
#include "tools/verbena/stats.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr int64_t kTimeoutSeconds = 10;

// Set by the first SIGINT: the round under way is the last. The second kills, as ever.
std::atomic<bool> interrupted = false;

void StopAfterThisRound() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = true; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
}

class PingClient {
 public:
  PingClient(const PingOptions& options, report::PingReport* report)
      : options_(options),
        report_(report),
        timeout_(absl::Seconds(options.timeout_s > 0 ? options.timeout_s : kTimeoutSeconds)) {}

  absl::Status Run() {
    absl::StatusOr<Context> context = Context::Open(OpenOptions(options_));
    if (!context.ok()) return context.status();
    absl::StatusOr<Path> path =
        context->Resolve(JoinHostPort(options_.host, options_.port), {.deadline = timeout_});
    if (!path.ok()) return AskForServer(path.status(), "ping", options_.host, options_.port);
    *report_->mutable_connection() = ToReport(path->info());
    absl::StatusOr<AdvertLink> link = AdvertLink::Make(path->device(), options_);
    if (!link.ok()) return link.status();
    absl::Status status = Connect(*path, *link);
    if (status.ok()) status = Rounds(*link);
    *report_->mutable_round() = ToReport(times_, 1e-3);
    if (status.ok()) status = link->link().qp().Disconnect();
    return status;
  }

 private:
  absl::Status Connect(Path& path, AdvertLink& link) {
    constexpr Access kLent = Access::kLocalWrite | Access::kRemoteRead | Access::kRemoteWrite;
    for (Buffer** buffer : {&source_, &sink_}) {
      absl::StatusOr<Buffer*> made = link.link().AddBuffer(options_.size, kLent);
      if (!made.ok()) return made.status();
      *buffer = *made;
    }
    ConnectParameters parameters;
    parameters.initiator_depth = parameters.responder_resources = 1;  // as rping asks for
    parameters.deadline = timeout_;
    absl::StatusOr<Accepted> accepted = path.Connect(link.link().qp(), parameters);
    if (!accepted.ok()) {
      return AskForServer(accepted.status(), "ping", options_.host, options_.port);
    }
    const ConnectionInfo info = link.link().qp().connection();
    *report_->mutable_connection() = ToReport(info);
    if (!options_.json) {
      printf("connected to %s over %s\n", info.peer.c_str(), Printable(Explain(info)).c_str());
    }
    return absl::OkStatus();
  }

  absl::Status Rounds(AdvertLink& link) {
    StopAfterThisRound();
    for (uint32_t round = 0; options_.count == 0 || round < options_.count; ++round) {
      if (interrupted) break;
      const Clock::time_point start = Clock::now();
      if (absl::Status status = Round(link, round); !status.ok()) {
        // The server may leave between pings, not within one.
        return absl::IsCancelled(status)
                   ? absl::UnavailableError(absl::StrCat(status.message(), " during ping ", round,
                                                         "; its own messages say why"))
                   : status;
      }
      times_.Add(static_cast<uint64_t>((Clock::now() - start) / std::chrono::nanoseconds(1)));
      report_->set_pings(round + 1);
      if (const size_t at = FirstDifference(); options_.validate && at < source_->bytes().size()) {
        return absl::DataLossError(
            absl::StrCat("ping ", round,
                         ": what came back is not what was sent; first difference at byte ", at));
      }
      if (options_.verbose && !options_.json) {
        printf("ping data: %s\n",
               Printable(reinterpret_cast<const char*>(sink_->bytes().data())).c_str());
      }
    }
    return absl::OkStatus();
  }

  absl::Status Round(AdvertLink& link, uint32_t round) {
    FillPing(round, source_->bytes());
    std::fill(sink_->bytes().begin(), sink_->bytes().end(), std::byte{0});
    for (const RemoteBuffer& lent :
         {Spoiled(source_->region().remote()), sink_->region().remote()}) {
      if (absl::Status status = link.Send(lent); !status.ok()) return status;
      absl::StatusOr<RemoteBuffer> go_ahead = link.Receive(timeout_);
      if (!go_ahead.ok()) return go_ahead.status();
    }
    return absl::OkStatus();
  }

  // What --fault makes of it.
  RemoteBuffer Spoiled(RemoteBuffer lent) const {
    if (options_.fault == "wrong-key") lent.key ^= 0x5a5a5a5a;
    if (options_.fault == "out-of-bounds") lent.address += lent.length / 2;
    return lent;
  }

  size_t FirstDifference() const {
    const auto [sent, came] =
        std::mismatch(source_->bytes().begin(), source_->bytes().end(), sink_->bytes().begin());
    return static_cast<size_t>(sent - source_->bytes().begin());
  }

  const PingOptions& options_;
  report::PingReport* const report_;
  const absl::Duration timeout_;
  Buffer* source_ = nullptr;
  Buffer* sink_ = nullptr;
  Histogram times_;  // nanoseconds
};

void PrintSummary(const report::PingReport& report) {
  if (report.pings() == 0) return;
  const report::Latency& round = report.round();
  printf("%s of %s%s: min %.1f µs, median %.1f µs, p99 %.1f µs, max %.1f µs\n",
         Count(report.pings(), "ping").c_str(), Count(report.size_bytes(), "byte").c_str(),
         report.validated() ? ", data compared" : "", round.min_us(), round.median_us(),
         round.p99_us(), round.max_us());
}

}  // namespace

int RunPingClient(const PingOptions& options) {
  report::PingReport report;
  report.set_size_bytes(static_cast<uint32_t>(options.size));
  report.set_validated(options.validate);
  report.set_fault(options.fault);
  absl::Status status = CheckDescriptors(1);
  if (status.ok()) status = PingClient(options, &report).Run();
  report.set_error(Printable(status.message()));
  if (options.json) {
    PrintJson(report);
  } else {
    PrintSummary(report);
  }
  return status.ok() ? kOk : Fail("ping", status);
}

}  // namespace verbena::tool
