// SPDX-License-Identifier: Apache-2.0
// `verbena perf`: options.
#include "tools/verbena/perf.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "tools/verbena/commands.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/flags.h"
#include "tools/verbena/plot.h"
#include "tools/verbena/preflight.h"

namespace verbena::tool {
namespace {

constexpr const char* kUsageText =
    R"(verbena perf -s [options]                 server side; serves until stopped
verbena perf -c -a HOST [options]         client side; says what is measured
verbena perf --plot FILE.svg RUN.json...  draws what clients have printed with --json

Mode lat: one operation at a time; for write and send the server answers each with its like, and
half of the round trip counts. Mode bw: a window of operations outstanding, from the first post to
the last completion. Mode rate: the same for small messages, with one completion a post. All
operations use the same memory. Both ends' CPU is that of their whole processes.

)";

constexpr const char* kExamplesText = R"(
Examples:
  verbena perf -s --cpu 0
  verbena perf -c -a HOST --cpu 1 --op write --mode lat --size 8
  verbena perf -c -a HOST --cpu 1 --op read --mode bw --size 1M --seconds 10 --json
  verbena perf -c -a HOST --cpu 1 --op send --mode rate --qps 4
  verbena perf -c -a HOST --cpu 1 --op write --mode lat --size all --json >write.json
  verbena perf -c -a HOST --cpu 1 --op send --mode lat --size all --json >send.json
  verbena perf --plot latency.svg write.json send.json

For users of perftest: ib_write_lat is --op write --mode lat, ib_read_bw is --op read --mode bw,
and so on. -n, -D, -t, -q, -l, -e, -A and -p are perftest's; columns too, where MiB is 2^20 bytes.
These differ:
  perftest -s SIZE, -a       here -S SIZE, -S all: -s is the server side, -a the server's address
  perftest -d DEV            here --device verbs:DEV; without, what `verbena devices` says
  perftest -c TYPE           here the client side; connections are reliable (RC)
  perftest -Q N              here each operation completes (bw), or the last of a post (rate)
  perftest -I BYTES          here nothing is sent inline
  perftest -R, -F            always so: connections are made by address, warnings do not stop us
t_typical is the median. BW peak is that of the fastest 64th of the run, not of two completions.
The warm-up is not counted. What perftest calls a client's exchange of options happens by itself:
a server needs none of the client's.
)";

FlagSet Flags(PerfOptions* o) {
  const Number iterations{&o->iterations, 1, kMaxPerfRounds};
  std::vector<Flag> flags = {
      {'s', "server", "", "server side", &o->server},
      {'c', "client", "", "client side", &o->client},
      {'a', "address", "ADDR", "server: listen there only; client: the server", &o->host},
      {'p', "port", "PORT", "default 7175; a server's 0: one that is free",
       Number{&o->port, 0, 65535}},
      {0, "op", "OP", "client: write, read, send or atomic; default write",
       Word{&o->op, {"write", "read", "send", "atomic"}}},
      {'A', "atomic", "KIND", "client: fetch-add (default) or compare-swap",
       Word{&o->atomic, {"fetch-add", "compare-swap"}}},
      {0, "mode", "MODE", "client: lat, bw or rate; default bw",
       Word{&o->mode, {"lat", "bw", "rate"}}},
      {'S', "size", "BYTES", "client: to 64M; 64-1M doubles from 64 to 1M; all is 1-64M", &o->size},
      {'C', "iterations", "N", "client: operations; default 10000 (lat), about 1 GB (bw)",
       iterations},
      {'n', "iters", "N", "perftest's name for the same", iterations},
      {'D', "seconds", "N", "client: instead, of each size; default 0.25 (rate, several sizes)",
       Number{&o->seconds, 1, 86400}},
      {'t', "window", "N", "client: outstanding on a queue pair, to 4096; 16 (bw), 512 (rate)",
       Number{&o->window, 1, kMaxPerfWindow}},
      {'l', "post-list", "N", "client: operations a post; default window / 4, at most 32",
       Number{&o->post_list, 1, kMaxPerfWindow}},
      {'q', "qps", "N", "client: queue pairs over one completion queue; default 1",
       Number{&o->qps, 1, kMaxPerfQps}},
      {'e', "events", "", "client: both ends sleep until completions come, and poll then",
       &o->events},
      {0, "cpu", "N", "keep this side on CPU N", Number{&o->cpu, 0, 4095}},
      {0, "device", "DEVICE", "auto, tcp, or verbs[:NAME]; see `verbena devices`", &o->device},
      {0, "rdma", "WHEN", "off, auto or required; default auto",
       Word{&o->rdma, {"off", "auto", "required"}}},
      {0, "timeout", "SECONDS", "of silence; default 10 for a client, 60 for a server",
       Number{&o->timeout_s, 1, 86400}},
      {0, "json", "", "client: print a PerfReport as JSON", &o->json},
      {0, "hgrm", "FILE", "client: the latencies of one size, for HdrHistogram's plotter",
       &o->hgrm},
      {0, "plot", "FILE.svg", "client: draw what was measured; alone: draw saved reports",
       &o->plot},
      {0, "progress", "", "client: on stderr, also if that is no terminal", &o->progress},
  };
  return FlagSet(std::move(flags), &o->files);
}

absl::Status Check(const PerfOptions& options) {
  if (!options.files.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`", options.files[0], "` is not an option; files are for --plot without -s and -c"));
  }
  if (absl::Status status = CheckSide(options); !status.ok()) return status;
  if (options.server && options.json) {
    return absl::InvalidArgumentError("--json is the client's: it has the result");
  }
  return absl::OkStatus();
}

int Draw(const PerfOptions& options) {
  if (options.files.empty()) {
    return Misused("perf", absl::InvalidArgumentError(
                               "--plot draws files: name what clients printed with --json, or say "
                               "-c and measure"));
  }
  const absl::Status status = PlotFiles(options.files, options.plot);
  return status.ok() ? kOk : Fail("perf", status);
}

}  // namespace

int Perf(int argc, char** argv) {
  PerfOptions options;
  FlagSet flags = Flags(&options);
  absl::Status status = flags.Parse(argc, argv);
  const bool bare = argc == 1;
  if (flags.help_wanted() || bare) {
    fprintf(bare ? stderr : stdout, "%s%s%s", kUsageText, flags.Help().c_str(), kExamplesText);
    return bare ? kUsage : kOk;
  }
  if (!status.ok()) return Misused("perf", status);
  if (!options.plot.empty() && !options.server && !options.client) return Draw(options);
  status = Check(options);
  absl::StatusOr<PerfPlan> plan = MakePlan(options);
  if (status.ok() && options.client) status = plan.status();
  if (!status.ok()) return Misused("perf", status);
  // Before any thread exists, so that all of them stay there, and are counted.
  if (options.cpu >= 0) status = PinToCpu(options.cpu);
  if (!status.ok()) return Fail("perf", status);
  const CpuMeter meter;
  return options.server ? RunPerfServer(options, meter) : RunPerfClient(options, *plan, meter);
}

}  // namespace verbena::tool
