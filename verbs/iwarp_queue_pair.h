// SPDX-License-Identifier: Apache-2.0
// A queue pair of an iWARP device, which posts in turns (turn.h): most requests by a short way of
// their own, the others as IwarpSends wants them. tests/bench/overhead counts the instructions.
//
// A request takes the short way if the device may have it now and as it is: in RTS, with nothing
// held, not fenced, no confirmation behind it, one entry with bytes and all of them in the region
// that the latest request of this opcode and these flags named. To ask that is one look at
// `latest_`: a form that may not has kNowhere there, whose key is nobody's.
//
// With the turn: all of its own.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "verbs/forms.h"
#include "verbs/local_keys.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {

class IwarpQueuePair final : public QueuePair {
 public:
  IwarpQueuePair(ProtectionDomain* domain, const QueuePairOptions& options);
  PostResult PostSend(std::span<const SendWr> requests) override;
  PostResult PostReceive(std::span<const ReceiveWr> requests) override;

 private:
  static const LocalKeys::Region kNowhere;

  void ForgetShortWays() override;
  PostResult PostNext(const SendWr& wr);  // waits for the turn
  // The rest has the turn, and passes it on.
  PostResult Look(const SendWr& wr);         // whether it may take the short way, beyond `latest_`
  int Hand(const SendWr& wr, size_t which);  // to the driver, which answers
  int HandRead(const SendWr& wr, size_t which, uint32_t sink, Ledger* ledger, uint64_t name);
  PostResult Failed(int error);
  bool MayTakeAsItIs(const SendWr& wr, size_t which);
  bool HaveRoom();
  // The same with the turn for receives.
  PostResult LookReceive(const ReceiveWr& wr);
  int HandReceive(const ReceiveWr& wr);
  PostResult FailedReceive(int error);
  // Any requests, without the turn.
  PostResult PostAny(std::span<const SendWr> requests);

  // The next places of the ledger: all before `end_` are free. No longer once anybody else has
  // taken one.
  Ledger::Place* next_ = nullptr;
  Ledger::Place* end_ = nullptr;
  int64_t reads_ = 0;  // so far apart may a read and what is outstanding be (IwarpSends::MayStart)
  std::array<const LocalKeys::Region*, kPlainForms> latest_;  // by PlainForm
  // What the driver is given, of which a post changes what differs.
  ibv_send_wr work_{}, read_{};
  ibv_send_wr* bad_ = nullptr;
  ibv_sge sink_{};
  ibv_recv_wr receive_{};
  ibv_recv_wr* bad_receive_ = nullptr;
};

}  // namespace verbena::verbs
