// SPDX-License-Identifier: Apache-2.0
// `verbena perf`: options.
#include "tools/verbena/perf.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "tools/verbena/commands.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/flags.h"
#include "tools/verbena/preflight.h"

namespace verbena::tool {
namespace {

constexpr const char* kUsageText =
    R"(verbena perf -s [options]             server side; serves until stopped
verbena perf -c -a HOST [options]     client side; says what is measured

Measures one queue pair. Mode lat: one operation at a time; for write and send the server answers
each with its like, and half of the round trip counts. Mode bw: a window of operations outstanding,
from the first post to the last completion. All operations use the same memory.

)";

constexpr const char* kExamplesText = R"(
Examples:
  verbena perf -s --cpu 0
  verbena perf -c -a HOST --cpu 1 --op write --mode lat --size 8
  verbena perf -c -a HOST --cpu 1 --op read --mode bw --size 1048576 --json
)";

FlagSet Flags(PerfOptions* o) {
  return FlagSet({
      {'s', "server", "", "server side", &o->server},
      {'c', "client", "", "client side", &o->client},
      {'a', "address", "ADDR", "server: listen there only; client: the server", &o->host},
      {'p', "port", "PORT", "default 7175; a server's 0: one that is free",
       Number{&o->port, 0, 65535}},
      {0, "op", "OP", "client: write, read or send; default write",
       Word{&o->op, {"write", "read", "send"}}},
      {0, "mode", "MODE", "client: lat or bw; default bw", Word{&o->mode, {"lat", "bw"}}},
      {'S', "size", "BYTES", "client: of an operation, to 67108864; default 8 (lat), 65536 (bw)",
       Number{&o->size, 1, kMaxPerfSize}},
      {'C', "iterations", "N", "client: operations; default 10000 (lat), about 1 GB (bw)",
       Number{&o->iterations, 1, 100'000'000}},
      {0, "window", "N", "client: operations outstanding in mode bw, to 4096; default 16",
       Number{&o->window, 1, kMaxPerfWindow}},
      {0, "cpu", "N", "keep this side on CPU N", Number{&o->cpu, 0, 4095}},
      {0, "device", "DEVICE", "auto, tcp, or verbs[:NAME]; see `verbena devices`", &o->device},
      {0, "rdma", "WHEN", "off, auto or required; default auto",
       Word{&o->rdma, {"off", "auto", "required"}}},
      {0, "timeout", "SECONDS", "of silence; default 10 for a client, 60 for a server",
       Number{&o->timeout_s, 1, 86400}},
      {0, "json", "", "client: print a PerfReport as JSON", &o->json},
  });
}

absl::Status Check(const PerfOptions& options) {
  if (absl::Status status = CheckSide(options); !status.ok()) return status;
  if (options.server && options.json) {
    return absl::InvalidArgumentError("--json is the client's: it has the result");
  }
  return absl::OkStatus();
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
  if (status.ok()) status = Check(options);
  if (!status.ok()) return Misused("perf", status);
  // Before any thread exists, so that all of them stay there.
  if (options.cpu >= 0) status = PinToCpu(options.cpu);
  if (!status.ok()) return Fail("perf", status);
  return options.server ? RunPerfServer(options) : RunPerfClient(options);
}

}  // namespace verbena::tool
