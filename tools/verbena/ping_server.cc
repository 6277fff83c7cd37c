// SPDX-License-Identifier: Apache-2.0
// `verbena ping -s`: reads what a client lends and writes it back.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/reports.pb.h"
#include "tools/verbena/address.h"
#include "tools/verbena/client_threads.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/ping.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/report.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr int64_t kTimeoutSeconds = 60;
constexpr int kMaxClients = 64;

// One client, from its request to its leaving.
class PingSession {
 public:
  PingSession(const PingOptions& options, report::PingReport* report)
      : options_(options),
        report_(report),
        timeout_(absl::Seconds(options.timeout_s > 0 ? options.timeout_s : kTimeoutSeconds)) {}

  // OK: the client left between two pings.
  absl::Status Run(ConnectionRequest request) {
    *report_->mutable_connection() = ToReport(request.info());
    absl::StatusOr<AdvertLink> link = AdvertLink::Make(request.device(), options_);
    if (!link.ok()) return Refuse(request, link.status());
    // Peers never touch it: the server reads from their memory, and writes to it.
    absl::StatusOr<Buffer*> data = link->link().AddBuffer(kMaxPing, Access::kLocalWrite);
    if (!data.ok()) return Refuse(request, data.status());
    data_ = *data;
    AcceptParameters parameters;
    parameters.initiator_depth = parameters.responder_resources = 1;
    absl::Status status = request.Accept(link->link().qp(), parameters);
    while (status.ok()) {
      status = Round(*link);
      if (status.ok()) report_->set_pings(report_->pings() + 1);
    }
    (void)link->link().qp().Disconnect();  // it may be gone already
    return absl::IsCancelled(status) ? absl::OkStatus() : status;
  }

 private:
  // The client learns why.
  static absl::Status Refuse(ConnectionRequest& request, absl::Status why) {
    constexpr size_t kRoom = 100;  // every provider takes as much
    (void)request.Reject(std::string(why.message().substr(0, kRoom)));
    return why;
  }

  absl::Status Round(AdvertLink& link) {
    absl::StatusOr<RemoteBuffer> source = link.Receive(timeout_);
    if (!source.ok()) return source.status();
    if (source->length > kMaxPing) {
      return absl::InvalidArgumentError(
          absl::StrCat("the client ", report_->connection().peer(), " lends ", source->length,
                       " bytes; a ping has at most ", kMaxPing, ". It is disconnected."));
    }
    const auto length = static_cast<uint32_t>(source->length);
    report_->set_size_bytes(length);
    absl::Status status = Move(link, WcOpcode::kRead, *source, length);
    if (!status.ok()) return status;
    if (options_.verbose && !options_.json) Show(length);
    if (status = link.SendGoAhead(); !status.ok()) return status;

    absl::StatusOr<RemoteBuffer> sink = link.Receive(timeout_);
    if (!sink.ok()) return sink.status();
    const auto back = static_cast<uint32_t>(std::min<uint64_t>(length, sink->length));
    if (status = Move(link, WcOpcode::kWrite, *sink, back); !status.ok()) return status;
    return link.SendGoAhead();
  }

  absl::Status Move(AdvertLink& link, WcOpcode kind, const RemoteBuffer& peer, uint32_t length) {
    const bool read = kind == WcOpcode::kRead;
    absl::Status status = link.link().PostSend({.opcode = read ? Opcode::kRead : Opcode::kWrite,
                                                .local = data_->slice(0, length),
                                                .remote = peer.at(0)});
    if (!status.ok()) return status;
    absl::StatusOr<WorkCompletion> done = link.link().Await(kind, timeout_);
    if (done.ok() || absl::IsCancelled(done.status())) return done.status();
    return absl::Status(
        done.status().code(),
        absl::StrCat("client ", report_->connection().peer(), ": ", read ? "reading" : "writing",
                     " its memory failed: ", done.status().message()));
  }

  void Show(uint32_t length) const {
    const char* text = reinterpret_cast<const char*>(data_->bytes().data());
    printf("server ping data: %s\n", Printable({text, strnlen(text, length)}).c_str());
  }

  const PingOptions& options_;
  report::PingReport* const report_;
  const absl::Duration timeout_;
  Buffer* data_ = nullptr;
};

int ServeOne(const PingOptions& options, ConnectionRequest request) {
  report::PingReport report;
  if (!options.json) {
    printf("client %s over %s\n", request.info().peer.c_str(),
           Printable(Explain(request.info())).c_str());
  }
  const absl::Status status = PingSession(options, &report).Run(std::move(request));
  report.set_error(Printable(status.message()));
  if (options.json) {
    PrintJson(report);
  } else {
    printf("client %s %s after %s\n", report.connection().peer().c_str(),
           status.ok() ? "left" : "failed", Count(report.pings(), "ping").c_str());
  }
  return status.ok() ? kOk : Fail("ping", status);
}

absl::Status Serve(const PingOptions& options, int* exit_status) {
  const int clients = options.persistent ? std::max(1, ConnectionsThatFit(kMaxClients)) : 1;
  if (absl::Status status = CheckDescriptors(clients); !status.ok()) return status;
  absl::StatusOr<Context> context = Context::Open(OpenOptions(options));
  if (!context.ok()) return context.status();
  absl::StatusOr<Listener> listener = context->Listen(JoinHostPort(options.host, options.port));
  if (!listener.ok()) return listener.status();
  fprintf(options.json ? stderr : stdout, "listening on %s\n", listener->address().c_str());
  if (options.persistent) {
    ClientThreads threads(clients, [&options](ConnectionRequest request) {
      (void)ServeOne(options, std::move(request));
    });
    return ServeForEver("ping", *listener, threads);
  }
  absl::StatusOr<ConnectionRequest> request = listener->Next();
  if (!request.ok()) return request.status();
  *exit_status = ServeOne(options, *std::move(request));
  return absl::OkStatus();
}

}  // namespace

int RunPingServer(const PingOptions& options) {
  int exit_status = kOk;
  const absl::Status status = Serve(options, &exit_status);
  return status.ok() ? exit_status : Fail("ping", status);
}

}  // namespace verbena::tool
