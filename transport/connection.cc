// SPDX-License-Identifier: Apache-2.0
#include "transport/connection.h"

#include <charconv>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "transport/context_state.h"
#include "transport/log.h"

namespace verbena {
namespace {

// For the provider to report that its own deadline has passed.
constexpr absl::Duration kReportSlack = absl::Seconds(1);

std::string Attempt(const std::string& peer, const QueuePair& qp) {
  return absl::StrCat("connect ", peer, " (qp 0x", absl::Hex(qp.number()), ")");
}

absl::Status Rejection(const std::string& attempt, const ConnectOutcome& outcome) {
  absl::Status status = outcome.status;
  if (status.ok()) status = absl::AbortedError(absl::StrCat(attempt, ": the peer rejected it"));
  // A connection manager may pad it with zeros. Escaped, since it may be binary; the event has it
  // as it came.
  const size_t end = outcome.private_data.find_last_not_of('\0');
  if (end == std::string::npos) return status;
  const std::string said = absl::Utf8SafeCHexEscape(outcome.private_data.substr(0, end + 1));
  if (absl::EndsWith(status.message(), said)) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(), ": ", said));
}

absl::Status Unreachable(const std::string& attempt, const ConnectOutcome& outcome) {
  if (!outcome.status.ok()) return outcome.status;
  return absl::UnavailableError(absl::StrCat(attempt,
                                             ": the peer cannot be reached. Is the "
                                             "address right, and does it listen?"));
}

absl::StatusOr<Accepted> AwaitOutcome(provider::Context* context, QueuePair& qp,
                                      const ConnectParameters& parameters,
                                      const std::string& attempt) {
  ConnectOutcome outcome;
  const auto ready = [&] {
    outcome = qp.impl()->outcome();
    return outcome.kind != ConnectOutcome::Kind::kPending;
  };
  context->Await(ready, parameters.deadline + kReportSlack);
  switch (outcome.kind) {
    case ConnectOutcome::Kind::kEstablished:
      return Accepted{std::move(outcome.private_data)};
    case ConnectOutcome::Kind::kRejected:
      return Rejection(attempt, outcome);
    case ConnectOutcome::Kind::kUnreachable:
      return Unreachable(attempt, outcome);
    case ConnectOutcome::Kind::kPending:
      break;
  }
  // Nobody waits for it any more, so it must not come about later.
  (void)qp.Disconnect();
  return absl::DeadlineExceededError(absl::StrCat(attempt, ": no answer within ",
                                                  absl::FormatDuration(parameters.deadline),
                                                  ". Is the peer overloaded or stuck?"));
}

}  // namespace

int Listener::port() const {
  const std::string address = impl_->address();
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon != std::string::npos) {
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
  }
  return port;
}

ConnectionRequest Listener::TryNext() {
  std::unique_ptr<provider::ConnectionRequest> impl = impl_->TryNext();
  if (impl == nullptr) return {};
  Device* device = context_->Find(impl->device());
  ConnectionRequest request(std::move(impl), device);
  if (device != nullptr) return request;
  VERBENA_LOG(kError, "connect", "listener ", address(), ": the request of ", request.info().peer,
              " names a device that is not the context's; rejected. Report this.");
  return {};  // and the destructor of `request` rejects
}

absl::StatusOr<ConnectionRequest> Listener::Next(absl::Duration timeout) {
  ConnectionRequest request;
  const auto ready = [&] {
    request = TryNext();
    return request.is_open();
  };
  if (context_->provider->Await(ready, timeout)) return request;
  return absl::DeadlineExceededError(
      absl::StrCat("listener ", address(), ": nobody connected within ",
                   absl::FormatDuration(timeout), ". Does the peer use this address and port?"));
}

absl::StatusOr<Accepted> Path::Connect(QueuePair& qp, const ConnectParameters& parameters) {
  if (absl::Status status = impl_->Connect(*qp.impl(), parameters); !status.ok()) return status;
  return AwaitOutcome(context_, qp, parameters, Attempt(info().peer, qp));
}

absl::Status QueuePair::Connect(const std::string& peer_address,
                                const ConnectParameters& parameters) {
  if (absl::Status status = StartConnect(peer_address, parameters); !status.ok()) return status;
  return AwaitOutcome(context_, *this, parameters, Attempt("out of band", *this)).status();
}

}  // namespace verbena
