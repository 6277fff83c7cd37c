// SPDX-License-Identifier: Apache-2.0
// A queue pair with a stream: the engine's protocol machine, driven by whoever is there (driven.h).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fallback/completion.h"
#include "fallback/driven.h"
#include "fallback/engine/handshake.h"
#include "fallback/engine/queue_pair.h"
#include "fallback/engine/token.h"
#include "fallback/hub.h"
#include "fallback/protection_domain.h"
#include "fallback/shared_receive_queue.h"
#include "transport/provider.h"

namespace verbena::fallback {

class QueuePair final : public provider::QueuePair,
                        public Driven,
                        engine::QueuePairObserver,
                        engine::WindowBinder {
 public:
  // `number`: 0: the next of the device.
  static absl::StatusOr<std::unique_ptr<provider::QueuePair>> Create(
      ProtectionDomain* domain, const QueuePairOptions& options, uint32_t number = 0);
  QueuePair(ProtectionDomain* domain, const QueuePairOptions& options,
            const engine::QueuePairConfig& config);
  ~QueuePair() override;

  // provider::QueuePair
  absl::Status Close() override;
  PostResult PostSend(std::span<const SendWr> requests) override;
  PostResult PostReceive(std::span<const ReceiveWr> requests) override;
  absl::Status Modify(const QpModify& change) override;
  QpAttributes Query() const override;
  Capabilities capabilities() const override { return engine_.capabilities(); }
  absl::Status Disconnect() override;
  absl::Status cause() const override { return engine_.cause(); }
  ConnectOutcome outcome() const override;
  ConnectionInfo connection() const override;
  QpCounters counters() const override { return engine_.counters(); }

  absl::StatusOr<Contact> contact() override;  // out_of_band.cc
  absl::Status Connect(const Contact& peer, const ConnectParameters& parameters) override;  // there

  // Out of band, in the two steps of ibv_modify_qp(3), and with addresses that others chose: see
  // decision 0021. Until RESET callers who know `own` are let in. Then, to RTR: without a deadline
  // while nothing is posted; `peer` may be its own. To RTS, where requests wait for the stream:
  // `retry`'s three are set, of a reliable one.
  absl::Status Expect(const Contact& own);
  absl::Status ConnectUnmanaged(const Contact& peer, const ConnectParameters& parameters);
  absl::Status Start(const QpModify& retry);
  // The process ends: what came is taken and acknowledged.
  void Finish();

  // Connecting. The outcome is an event and outcome().
  absl::Status StartConnect(std::vector<io::Address> to, const ConnectParameters& parameters,
                            const provider::Selection& selection, const ConnectionInfo& info);
  engine::Offer OfferOf(const AcceptParameters& parameters) const;
  // Takes `socket` over, on which `peer` waits for an answer.
  absl::Status Accept(io::Socket socket, const engine::PeerRequest& peer,
                      const AcceptParameters& parameters, const ConnectionInfo& info);

  // Driven
  Nanos WorkAndRelease(Why why, Nanos now) override { return Rounds(this, why, now); }
  void SettleAndRelease() override;
  void ForgetDeadKeys() override;

  uint32_t number() const { return engine_.number(); }

 private:
  friend class Driven;  // Work
  static engine::QueuePairConfig Configure(ProtectionDomain* domain,
                                           const QueuePairOptions& options, uint32_t number);

  // Watched
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override;
  void OnTick() override;
  // engine::QueuePairObserver, WindowBinder
  void OnEvent(EventType type, const absl::Status& why) override;
  void OnSharedLimit() override { srq_->LimitReached(); }
  void PrepareBind(const WindowBinding& bind, engine::SendEntry* entry) override;

  bool HasStream() const override { return phase_ == Phase::kStreaming; }

  // datapath.cc
  void Work(Why why, Nanos now);
  enum class Came : uint8_t { kNothing, kAll, kMore };
  Came ReceiveSome(Nanos now);
  bool SendSome(bool idle, Nanos now);
  void ReadMss(Nanos now);
  bool MayWait(Nanos now) const;
  bool AnswerMayCome(Nanos now);
  void ServeStream(Why why, Nanos now);

  // connecting.cc, owner
  absl::Status CheckIdle() const;
  void Begin(std::vector<io::Address> to, const ConnectParameters& parameters, engine::Offer offer,
             const ConnectionInfo& info);
  void TryNextAddress(uint8_t revision = 2);
  void ContinueConnect();
  bool MayTryRevisionOne(ssize_t received) const;
  void TakeReply();
  void ConnectFailed(const absl::Status& why, bool try_next);
  void ConnectDone(ConnectOutcome outcome, EventType event);
  void Attach(const engine::Session& session);
  void CloseConnecting();
  void DropSocket(bool reset);  // of a connect under way
  void TakeWhatIsThere();
  void EndStream();  // hands the socket to the lingerer
  void DropStream();
  void SetLiveness(std::optional<uint8_t> timeout, std::optional<uint8_t> retry_count);
  void SetTrafficClass(uint8_t traffic_class);

  // out_of_band.cc, owner
  void ForgetContact();
  void Meet();
  void BoundTry();
  void EndTry(const absl::Status& why);
  void AnswerCall();
  void AwaitConfirmation();
  bool AnswerIsTheirs(engine::PeerReply* reply) const;  // takes the proof off
  absl::Status NotMet() const;
  absl::Status BeginMeeting(const Contact& peer, const ConnectParameters& parameters);
  absl::Status MeetItself(const ConnectParameters& parameters);
  Nanos GiveUpAt(Nanos now) const;
  void AwaitLoss();

  ProtectionDomain* const domain_;
  SharedReceiveQueue* const srq_;
  void* const context_;
  engine::QueuePair engine_;

  std::atomic<bool> has_unsent_{false};
  mutable std::atomic<bool> drain_watched_{false};
  std::atomic<uint8_t> traffic_class_{0};  // written by the owner

  // Owner only.
  // Out of band also: kMeeting, between two tries; kAnswered, the caller has to confirm.
  enum class Phase : uint8_t {
    kIdle,
    kMeeting,
    kConnecting,
    kAwaitingReply,
    kAnswered,
    kStreaming
  };
  Phase phase_ = Phase::kIdle;
  std::atomic<bool> connectable_{false};  // the connecting socket has an outcome
  std::vector<std::byte> unsent_request_;
  bool sent_farewell_ = false;
  Nanos deadline_ = io::kNever;  // of the connect, or of the farewell
  Nanos lost_at_ = io::kNever;   // then requests of an unmanaged one fail
  Nanos last_empty_ = 0;         // nothing was there to receive
  std::atomic<Nanos> last_sent_{0};
  Nanos answer_due_ = io::kNever;    // then an acknowledgement that waits for company goes alone
  std::atomic<bool> posted_{false};  // since the last message that waited for an answer
  Nanos mss_due_ = 0;                // plain peers: when to ask again how long a segment may be
  struct Rendezvous {                // of an out-of-band connect
    engine::Place place = {};
    Nonce own = {}, peer = {};
    engine::Token mine = {}, theirs = {};  // the calls of both ends
    bool lower = false;                    // this end's nonce is
    engine::Session session;               // of the answer
    Nanos dial_at = 0;
    Nanos next_at = 0;              // of a try: the next address
    Nanos yield_at = io::kNever;    // the peer's call is answered instead of waiting for an answer
    Nanos give_up_at = io::kNever;  // unmanaged: a request has waited long enough
  };
  struct Connecting {
    std::vector<io::Address> addresses;
    size_t next = 0;
    io::Address current;
    ConnectParameters parameters;
    engine::Offer offer;
    engine::FrameReader reader;
    absl::Status last_error;
    std::unique_ptr<Rendezvous> meeting;
  };
  std::unique_ptr<Connecting> connecting_;

  mutable std::mutex mutex_;  // the rest
  ConnectOutcome outcome_;
  std::optional<Contact> contact_;
  ConnectionInfo info_;
};

}  // namespace verbena::fallback
