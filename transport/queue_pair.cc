// SPDX-License-Identifier: Apache-2.0
// The waits of a queue pair, each a condition for the provider's one Await.
#include "transport/queue_pair.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "transport/out_of_band.h"

namespace verbena {
namespace {

std::string Name(const QpAttributes& qp) {
  return absl::StrCat("qp 0x", absl::Hex(qp.qp_number), " (", QpStateName(qp.state), ")");
}

bool Failed(QpState state) { return state == QpState::kErr || state == QpState::kSqe; }

bool Disconnected(const provider::QueuePair& qp) {
  // The outcome first: were it read last, a connect between the two would look like INIT after it.
  const bool tried = qp.outcome().kind != ConnectOutcome::Kind::kPending;
  switch (qp.Query().state) {
    case QpState::kErr:
    case QpState::kReset:
      return true;
    case QpState::kInit:
      return tried;  // a connect that failed; without one it is yet to come
    case QpState::kRtr:
    case QpState::kRts:
    case QpState::kSqd:
    case QpState::kSqe:
      return false;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::string> QueuePair::address() {
  const absl::StatusOr<Contact> contact = impl_->contact();
  if (!contact.ok()) return contact.status();
  return Encode(*contact);
}

absl::Status QueuePair::StartConnect(const std::string& peer_address,
                                     const ConnectParameters& parameters) {
  if (!parameters.private_data.empty()) {
    return absl::InvalidArgumentError(
        "connect: out of band there is no private data. Exchange it with the address.");
  }
  const absl::StatusOr<Contact> peer = DecodeContact(peer_address);
  if (!peer.ok()) return peer.status();
  return impl_->Connect(*peer, parameters);
}

absl::Status QueuePair::WaitUntilDisconnected(absl::Duration timeout) {
  if (context_->Await([&] { return Disconnected(*impl_); }, timeout)) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat(Name(Query()), ": neither end disconnected within ",
                   absl::FormatDuration(timeout), ". Call Disconnect() to end it from here."));
}

absl::Status QueuePair::Drain(absl::Duration timeout) {
  QpAttributes seen;
  const bool settled = context_->Await(
      [&] {
        seen = impl_->Query();
        return Failed(seen.state) || seen.send_outstanding == 0;
      },
      timeout);
  if (Failed(seen.state)) {
    if (absl::Status why = cause(); !why.ok()) return why;
    // Nothing outstanding proves nothing here: flushed requests are complete as well.
    return absl::UnavailableError(
        absl::StrCat(Name(seen),
                     ": was disconnected before it was seen drained. The completions say which "
                     "requests arrived."));
  }
  if (settled) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat(Name(seen), ": ", seen.send_outstanding, " sends were not complete within ",
                   absl::FormatDuration(timeout),
                   seen.state == QpState::kSqd ? ". Set it to RTS: SQD holds them back."
                                               : ". Does the peer post receives? Is it alive?"));
}

}  // namespace verbena
