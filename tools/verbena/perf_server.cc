// SPDX-License-Identifier: Apache-2.0
// `verbena perf -s`: answers whatever its clients measure.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/verbena/address.h"
#include "tools/verbena/client_threads.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/perf.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/report.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr int64_t kTimeoutSeconds = 60;
constexpr int kMaxClients = 8;  // more would measure each other

// OK: the client measured all that it wanted.
absl::Status Session(ConnectionRequest request, absl::Duration patience) {
  auto refuse = [&request](absl::Status why) {
    constexpr size_t kRoom = 100;  // every provider takes as much
    (void)request.Reject(std::string(why.message().substr(0, kRoom)));
    return why;
  };
  const std::string peer = request.info().peer;
  absl::StatusOr<PerfRequest> wanted = DecodePerfRequest(request.private_data());
  if (!wanted.ok()) return refuse(wanted.status());
  const double cpu = CpuSeconds();
  absl::StatusOr<PerfEnd> end = PerfEnd::Make(request.device(), *wanted, patience);
  if (!end.ok()) return refuse(end.status());
  end->set_peer(wanted->lent);
  AcceptParameters parameters;
  parameters.private_data = EncodePerfAnswer(end->lent());
  if (absl::Status status = request.Accept(end->link().qp(), parameters); !status.ok()) {
    return status;
  }
  printf("client %s over %s: %s %s, %s\n", peer.c_str(), Printable(Explain(request.info())).c_str(),
         PerfOpName(wanted->op), PerfModeName(wanted->mode), Count(wanted->size, "byte").c_str());
  Spinner spinner(end->link(), absl::ToChronoNanoseconds(patience));
  absl::Status status = AnswerRounds(*end, spinner);
  if (status.ok()) {
    status = end->SendControl(EncodePerfResult({.cpu_seconds = CpuSeconds() - cpu}));
  }
  if (status.ok()) {
    // The client has it when it leaves; a flushed receive shows that.
    status = end->link().Await(WcOpcode::kReceive, patience).status();
    if (absl::IsCancelled(status)) return absl::OkStatus();
  }
  (void)end->link().qp().Disconnect();  // it may be gone already
  return absl::IsCancelled(status)
             ? absl::UnavailableError(absl::StrCat("client ", peer, " left before it was done"))
             : status;
}

absl::Status Serve(const PerfOptions& options) {
  const absl::Duration patience =
      absl::Seconds(options.timeout_s > 0 ? options.timeout_s : kTimeoutSeconds);
  const int clients = std::max(1, ConnectionsThatFit(kMaxClients));
  if (absl::Status status = CheckDescriptors(clients); !status.ok()) return status;
  absl::StatusOr<Context> context = Context::Open(OpenOptions(options));
  if (!context.ok()) return context.status();
  absl::StatusOr<Listener> listener = context->Listen(JoinHostPort(options.host, options.port));
  if (!listener.ok()) return listener.status();
  printf("listening on %s\n", listener->address().c_str());
  ClientThreads threads(clients, [patience](ConnectionRequest request) {
    const std::string peer = request.info().peer;
    const absl::Status status = Session(std::move(request), patience);
    if (status.ok()) {
      printf("client %s is done\n", peer.c_str());
    } else {
      Complain("perf", absl::StrCat("client ", peer, ": ", status.message()));
    }
  });
  return ServeForEver("perf", *listener, threads);
}

}  // namespace

int RunPerfServer(const PerfOptions& options) { return Fail("perf", Serve(options)); }

}  // namespace verbena::tool
