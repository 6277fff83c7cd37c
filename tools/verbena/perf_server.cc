// SPDX-License-Identifier: Apache-2.0
// `verbena perf -s`: answers whatever its clients measure.
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/verbena/address.h"
#include "tools/verbena/client_threads.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/perf.h"
#include "tools/verbena/perf_end.h"
#include "tools/verbena/perf_loops.h"
#include "tools/verbena/preflight.h"
#include "tools/verbena/tcp_facts.h"
#include "tools/verbena/text.h"
#include "transport/context.h"

namespace verbena::tool {
namespace {

constexpr int64_t kTimeoutSeconds = 60;
constexpr size_t kMaxClients = 8;  // more would measure each other

absl::Status Refuse(ConnectionRequest& request, absl::Status why) {
  constexpr size_t kRoom = 100;  // every provider takes as much
  (void)request.Reject(std::string(why.message().substr(0, kRoom)));
  return why;
}

// A session's further connections, on their way from the threads that they came to.
class Sessions {
 public:
  // False: there are enough, or the number is in use.
  bool Open(uint64_t session) {
    const std::lock_guard lock(mutex_);
    return joining_.size() < kMaxClients && joining_.try_emplace(session).second;
  }

  void Close(uint64_t session) {
    const std::lock_guard lock(mutex_);
    joining_.erase(session);
  }

  absl::Status Join(uint64_t session, uint32_t index, ConnectionRequest request) {
    {
      const std::lock_guard lock(mutex_);
      auto found = joining_.find(session);
      if (found != joining_.end() && found->second.try_emplace(index, std::move(request)).second) {
        came_.notify_all();
        return absl::OkStatus();
      }
    }
    return Refuse(request, absl::NotFoundError("a further queue pair of no client that is here"));
  }

  // DeadlineExceeded after `patience`.
  absl::StatusOr<ConnectionRequest> Take(uint64_t session, uint32_t index,
                                         absl::Duration patience) {
    std::unique_lock lock(mutex_);
    std::map<uint32_t, ConnectionRequest>& mine = joining_[session];
    if (!came_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                        [&] { return mine.contains(index); })) {
      return absl::DeadlineExceededError(absl::StrCat("its queue pair ", index, " did not come"));
    }
    ConnectionRequest request = std::move(mine[index]);
    mine.erase(index);
    return request;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::map<uint64_t, std::map<uint32_t, ConnectionRequest>> joining_;
};

class Session {
 public:
  Session(const PerfRequest& wanted, const CpuMeter& meter, Sessions& sessions,
          absl::Duration patience)
      : wanted_(wanted), meter_(meter), sessions_(sessions), patience_(patience) {}

  // OK: the client measured all that it wanted.
  absl::Status Run(ConnectionRequest request) {
    const std::string peer = request.info().peer;
    absl::StatusOr<std::unique_ptr<PerfEnd>> end =
        PerfEnd::Make(request.device(), wanted_, {.server = true}, patience_);
    if (!end.ok()) return Refuse(request, end.status());
    end_ = *std::move(end);
    end_->set_peer(wanted_.lent);
    printf("client %s over %s: %s %s, %s%s%s\n", peer.c_str(),
           Printable(Explain(request.info())).c_str(), PerfOpName(wanted_.op),
           PerfModeName(wanted_.mode), Count(wanted_.size, "byte").c_str(),
           wanted_.queue_pairs == 1
               ? ""
               : absl::StrCat(", ", wanted_.queue_pairs, " queue pairs").c_str(),
           wanted_.events ? ", events" : "");
    absl::Status status = AcceptAll(std::move(request));
    bool working = true;
    while (status.ok()) status = Leg(&working);
    // The client has its answer when it leaves; a flushed receive shows that.
    if (absl::IsCancelled(status) && !working) return absl::OkStatus();
    for (uint32_t i = 0; i < wanted_.queue_pairs; ++i) {
      (void)end_->qp(i).Disconnect();  // it may be gone already
    }
    return absl::IsCancelled(status)
               ? absl::UnavailableError(absl::StrCat("client ", peer, " left before it was done"))
               : status;
  }

 private:
  absl::Status AcceptAll(ConnectionRequest request) {
    const Device* const device = &request.device();
    AcceptParameters parameters;
    parameters.private_data = EncodePerfAnswer(end_->lent());
    absl::Status status = request.Accept(end_->qp(0), parameters);
    for (uint32_t i = 1; status.ok() && i < wanted_.queue_pairs; ++i) {
      absl::StatusOr<ConnectionRequest> next = sessions_.Take(wanted_.session, i, patience_);
      if (!next.ok()) return next.status();
      if (&next->device() != device) {
        return Refuse(*next,
                      absl::FailedPreconditionError(
                          "its queue pairs came over different devices; name one: --device"));
      }
      status = next->Accept(end_->qp(i), parameters);
    }
    return status;
  }

  // What the client says next. `working`: it is owed an answer, or the work of a leg.
  absl::Status Leg(bool* working) {
    absl::StatusOr<std::string> heard = end_->Hear();
    if (!heard.ok()) return heard.status();
    absl::StatusOr<PerfLeg> leg = DecodePerfLeg(*heard, wanted_);
    if (!leg.ok()) return leg.status();
    *working = true;
    if (leg->rounds > 0) end_->Prepare(leg->size);
    const TcpFacts tcp = leg->rounds == 0 ? FactsOf(end_->qp(0).connection()) : TcpFacts{};
    if (!end_->Say(EncodePerfUsage({.cpu = meter_.Read(), .tcp = tcp}))) return end_->status();
    if (leg->rounds > 0 && !AnswerLeg(*end_, *leg)) return end_->status();
    *working = leg->rounds > 0;
    return absl::OkStatus();
  }

  const PerfRequest wanted_;
  const CpuMeter& meter_;
  Sessions& sessions_;
  const absl::Duration patience_;
  std::unique_ptr<PerfEnd> end_;
};

class PerfServer {
 public:
  PerfServer(const CpuMeter& meter, absl::Duration patience) : meter_(meter), patience_(patience) {}

  // In a thread of its own for each connection.
  void Serve(ConnectionRequest request) {
    const std::string peer = request.info().peer;
    absl::StatusOr<PerfRequest> wanted = DecodePerfRequest(request.private_data());
    absl::Status status = wanted.status();
    if (!status.ok()) {
      status = Refuse(request, status);
    } else if (wanted->index > 0) {
      status = sessions_.Join(wanted->session, wanted->index, std::move(request));
      if (status.ok()) return;
    } else {
      status = Open(*wanted, std::move(request));
    }
    if (status.ok()) {
      printf("client %s is done\n", peer.c_str());
    } else {
      Complain("perf", absl::StrCat("client ", peer, ": ", status.message()));
    }
  }

 private:
  absl::Status Open(const PerfRequest& wanted, ConnectionRequest request) {
    const int need = ConnectionsOf(wanted.queue_pairs);
    if (ConnectionsThatFit(need) < need) {
      return Refuse(request, absl::ResourceExhaustedError(absl::StrCat(
                                 "no file descriptors for ", wanted.queue_pairs,
                                 " queue pairs at the server: raise its `ulimit -n`")));
    }
    if (!sessions_.Open(wanted.session)) {
      return Refuse(request, absl::ResourceExhaustedError(absl::StrCat(
                                 "busy: ", kMaxClients, " clients measure; try again later")));
    }
    const absl::Status status =
        Session(wanted, meter_, sessions_, patience_).Run(std::move(request));
    sessions_.Close(wanted.session);
    return status;
  }

  const CpuMeter& meter_;
  const absl::Duration patience_;
  Sessions sessions_;
};

absl::Status Serve(const PerfOptions& options, const CpuMeter& meter) {
  const absl::Duration patience =
      absl::Seconds(options.timeout_s > 0 ? options.timeout_s : kTimeoutSeconds);
  if (absl::Status status = CheckDescriptors(1); !status.ok()) return status;
  absl::StatusOr<Context> context = Context::Open(OpenOptions(options));
  if (!context.ok()) return context.status();
  absl::StatusOr<Listener> listener = context->Listen(JoinHostPort(options.host, options.port));
  if (!listener.ok()) return listener.status();
  printf("listening on %s\n", listener->address().c_str());
  PerfServer server(meter, patience);
  // Each of the clients may have a further connection on its way.
  ClientThreads threads(2 * kMaxClients,
                        [&server](ConnectionRequest request) { server.Serve(std::move(request)); });
  return ServeForEver("perf", *listener, threads);
}

}  // namespace

int RunPerfServer(const PerfOptions& options, const CpuMeter& meter) {
  return Fail("perf", Serve(options, meter));
}

}  // namespace verbena::tool
