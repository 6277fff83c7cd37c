// SPDX-License-Identifier: Apache-2.0
// A reliable-connected queue pair of a device, and its connection through librdmacm. The others
// share the rest: unreliable_queue_pair.h, datagram_queue_pair.h.
//
// The queue pair is our own, not the identifier's: its protection domain and queues exist before
// anybody knows the peer (rdma_connect(3), qp_num). So its transitions are ours as well, with the
// attributes that rdma_init_qp_attr(3) gives, and the active end confirms with rdma_establish(3).
//
// The service's mutex guards everything but the hot path, which reads what never changes, the
// ledgers, and one atomic word.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "transport/provider.h"
#include "verbs/completion.h"
#include "verbs/forms.h"
#include "verbs/iwarp_sends.h"
#include "verbs/protection_domain.h"
#include "verbs/service.h"
#include "verbs/shared_receive_queue.h"
#include "verbs/turn.h"

namespace verbena::verbs {

template <typename Wr>
struct Posting;

class QueuePair : public provider::QueuePair, public CmHandler, public Attended {
 public:
  static absl::StatusOr<std::unique_ptr<provider::QueuePair>> Create(
      ProtectionDomain* domain, const QueuePairOptions& options);
  QueuePair(ProtectionDomain* domain, const QueuePairOptions& options);
  ~QueuePair() override;

  // provider::QueuePair
  absl::Status Close() override;
  PostResult PostSend(std::span<const SendWr> requests) override;        // hot_path.cc
  PostResult PostReceive(std::span<const ReceiveWr> requests) override;  // hot_path.cc
  absl::Status Modify(const QpModify& change) override;                  // states.cc
  QpAttributes Query() const override;                                   // states.cc
  Capabilities capabilities() const override;
  absl::Status Disconnect() override;
  absl::Status cause() const override;
  ConnectOutcome outcome() const override;
  ConnectionInfo connection() const override;
  QpCounters counters() const override;

  absl::StatusOr<Contact> contact() override;  // out_of_band.cc
  absl::Status Connect(const Contact& peer, const ConnectParameters& parameters) override;  // there

  // connecting.cc. The outcome is an event and outcome().
  absl::Status StartConnect(const Address& to, const ConnectParameters& parameters,
                            const ConnectionInfo& info);
  // Whether this end and that of the offer have what is required.
  absl::Status CheckOffer(const CmEvent& offer, const Require& require) const;
  // Takes `id`, on which a peer waits that offered these depths, over if it is OK.
  absl::Status Accept(rdma_cm_id* id, const CmEvent& offer, const AcceptParameters& parameters,
                      const ConnectionInfo& info);

  // With the service's mutex held.
  void OnCm(const CmEvent& event) override;
  void OnAttention() override;
  void OnDeadline() override;
  void OnAsync(ibv_event_type type);
  void OnPoll(CompletionQueue* cq);  // iwarp_sends.cc; from `cq`
  virtual void CompletionFailed(WcStatus status, const char* what, uint32_t key);
  void QueueBroken(const absl::Status& why);  // one of its completion queues
  void DeviceGone(const absl::Status& why);

  Device* device() const { return device_; }
  uint32_t number() const { return number_; }
  // Receives of a shared queue, that tell who sent them, come to this completion queue.
  bool ReceivesSharedDatagrams(const CompletionQueue* cq) const {
    return type_ == QpType::kUd && srq_ != nullptr && receive_cq_ == cq;
  }

 private:
  friend class DatagramQueuePair;
  friend class IwarpQueuePair;
  friend class UnreliableConnection;
  friend class UnreliableQueuePair;
  static constexpr uint32_t kBatch = 32;   // requests that one call of the driver gets
  static constexpr uint8_t kReceives = 1;  // of may_post_
  static constexpr uint8_t kSends = 2;
  static constexpr uint8_t kFlushes = 4;  // in ERR: what is posted shall flush at once
  static constexpr uint8_t kShort = 16;   // receives may take the short way of hot_path.cc
  static constexpr uint8_t kKeeps = 8;    // iWARP, in SQD and ERR: the device does not get it
  enum class Phase : uint8_t {
    kIdle,
    kAddress,     // rdma_resolve_addr
    kRoute,       // rdma_resolve_route
    kConnecting,  // rdma_connect
    kAccepting,   // rdma_accept, and the peer has not confirmed
    kConnected,
  };
  struct Parameters {  // of Connect or Accept
    std::string private_data;
    uint32_t initiator_depth = 0;
    uint32_t responder_resources = 0;
  };

  static absl::Status CheckOptions(ProtectionDomain* domain, const QueuePairOptions& options);
  // `qp`, with what the device has for it.
  static absl::StatusOr<std::unique_ptr<provider::QueuePair>> Made(std::unique_ptr<QueuePair> qp);
  absl::Status Make();
  absl::Status MakeInlineArea();
  void LeaveSharedQueue();  // before RESET and destruction
  bool MakeDeviceQueuePair();

  // hot_path.cc
  void OpenShortWay(bool open);
  uint32_t OpenFewer(size_t form) const;
  void MakeOpenForms();
  const Form& ShortForm(const SendWr& wr) const;
  bool IsPlain(const SendWr& wr) const;
  void Begin(const Ledger& ledger, uint64_t name, Posting<ibv_send_wr>* post);
  int Give(Posting<ibv_send_wr>* post);
  PostResult PostTwo(std::span<const SendWr> requests, const Form& form);
  PostResult PostAtomic(const SendWr& wr);
  PostResult PostOther(const SendWr& wr);
  PostResult PostBatch(std::span<const SendWr> requests);
  PostResult Refused(Ledger* ledger, uint64_t name, int error);

  // datapath.cc
  PostResult PostReceiveBatch(std::span<const ReceiveWr> requests);
  // Any request. `own` is for an entry that the caller did not give.
  virtual PostError Build(const SendWr& wr, uint64_t position, ibv_send_wr* out, ibv_sge* own);
  PostError BuildBind(const WindowBinding& bind, uint64_t position, ibv_send_wr* out, ibv_sge* own);
  // The request cannot succeed: it shall fail in its turn with this status, on every driver alike.
  PostError BuildFailing(WcStatus status, Ledger::Place* place, ibv_send_wr* out, ibv_sge* own);
  PostError CopyInline(const SendWr& wr, uint64_t length, uint64_t position, ibv_send_wr* out,
                       ibv_sge* own);
  void BindPosted(const SendWr& wr, uint64_t position, bool taken);
  PostError Refusal() const;
  void Kick();
  void RingDoorbell();

  // iwarp_posts.cc. With the turn: what IwarpQueuePair has found out is void.
  virtual void ForgetShortWays() {}

  // iwarp_sends.cc
  PostResult KeepSends(std::span<const SendWr> requests);
  PostResult KeepReceives(std::span<const ReceiveWr> requests);
  void SetConfirms(bool wanted);
  std::string PrivateData(const std::string& application) const;
  int HoldSends();
  bool MayStart(const SendWr& wr, uint64_t position) const;
  void Probe();
  bool LookForHeld();
  PostResult Wait(std::span<const SendWr> requests);
  int ReleaseSends();
  void KeepAll(bool refused);
  void Flush(Ledger* ledger, CompletionQueue* cq);
  int Remake();

  // states.cc
  absl::Status Apply(const QpModify& change);
  virtual absl::Status Move(QpState to, const QpModify& change);  // not to RESET or ERR
  int ToSqd();
  int ToRts();
  bool Draining() const;
  void LookAgain();
  void LookWhetherDrained();
  void Drained();
  absl::Status ToInit();
  virtual int FillInit(ibv_qp_attr* attributes) const;  // what INIT needs besides: the mask
  absl::Status ToReset();
  int ModifyDevice(ibv_qp_attr& attributes, int mask) const;
  void SetState(QpState state);
  void SetMayPost(uint8_t may);
  QpState DeviceState() const;  // state_ if the device does not tell
  void FailedByDevice();
  // Why a request failed, and what to do after it was mended. FailedWith: to ERR, for that.
  absl::Status Failure(WcStatus status, const char* what, uint32_t key, const char* remedy) const;
  void FailedWith(const absl::Status& why);
  void LastWqeReached();
  // To ERR, whoever found the reason: `why` is kept unless the application asked for it (OK).
  void EnterError(const absl::Status& why);
  void FinishError();
  void SayGoodbye();
  void PushEvent(EventType type, const absl::Status& why) const;

  // out_of_band.cc
  absl::Status CheckPort(const Way& mine, const Way& peer) const;
  int ToReadyToSend(const Way& mine, const Way& peer);
  uint8_t TrafficClass() const;

  // connecting.cc
  absl::Status CheckIdle(const char* what) const;
  absl::Status CheckManaged(const char* what) const;
  absl::Status CheckRequirements(const char* what, const Require& require) const;
  bool TellsDepths(const CmEvent& offer) const;
  void AddressResolved();
  void RouteResolved();
  void Responded(const CmEvent& event);
  void Established();
  void Rejected(const CmEvent& event);
  // `lacks`: one end lacks what the other requires, so another try is of no use.
  void ConnectFailed(const absl::Status& why, bool lacks = false);
  void ConnectDone(ConnectOutcome outcome, EventType type);
  int ToReadyToSend(uint32_t initiator_depth, uint32_t responder_resources);
  rdma_conn_param ConnectionParameters(const Parameters& parameters) const;
  void SetTimers(std::optional<uint8_t> timeout, std::optional<uint8_t> retry_count);
  void TakeTimers(ibv_qp_attr& attributes, int mask);
  void ReadAddresses();
  void Part();    // tells the peer, once
  void DropId();  // no more events of this connection
  std::string Name() const;

  Device* const device_;
  ProtectionDomain* const domain_;
  CompletionQueue* const send_cq_;
  CompletionQueue* const receive_cq_;
  SharedReceiveQueue* const srq_;
  void* const context_;
  const Capabilities capabilities_;  // at most
  const Signal signal_;
  const Form* const forms_;  // by WhichForm
  QpLimits limits_;
  ibv_qp* qp_ = nullptr;
  uint32_t number_ = 0;
  Ledger* send_ledger_ = nullptr;
  Ledger* receive_ledger_ = nullptr;
  uint64_t max_message_ = 0;
  uint32_t device_inline_ = 0;
  std::unique_ptr<std::byte[]> inline_area_;  // where the driver takes less inline data than asked
  uint64_t inline_mask_ = 0;
  ibv_mr* inline_mr_ = nullptr;
  // By PlainForm, with what may take the short ways of hot_path.cc: that is all that a post asks.
  // open_forms_ in RTS, which are made once and never change; else, and on iWARP, forms_.
  std::atomic<const Form*> short_forms_{forms_};
  std::unique_ptr<std::array<Form, kPlainForms>> open_forms_;
  // The same for requests of any shape with fewer bytes; zeros when it is closed.
  std::array<std::atomic<uint32_t>, kPlainForms> fewer_{};
  std::atomic<uint8_t> may_post_{0};
  std::unique_ptr<IwarpSends> iwarp_;  // of an iWARP device only
  Turn send_turn_, receive_turn_;      // there
  // IwarpQueuePair's next places for receives, as those for sends there.
  Ledger::Place* next_receive_ = nullptr;
  Ledger::Place* end_receive_ = nullptr;

  QpState state_ = QpState::kReset;
  Access access_;
  uint8_t min_rnr_timer_ = 12;
  uint8_t rnr_retry_ = 7;
  uint8_t retry_count_ = kDefaultRetryCount;
  uint8_t timeout_ = kDefaultTimeout;
  bool path_decides_timeout_ = true;
  bool path_decides_retries_ = true;
  uint8_t traffic_class_ = 0;
  uint32_t initiator_depth_ = 0;
  uint32_t responder_resources_ = 0;
  bool drained_ = false;
  bool resuming_ = false;  // RTS was asked for while the device is still draining
  bool last_wqe_told_ = false;
  bool asked_ = false;  // the application wanted ERR: nobody's failure

  Phase phase_ = Phase::kIdle;
  rdma_cm_id* id_ = nullptr;
  Address peer_;
  Parameters parameters_;
  absl::Duration deadline_;
  bool parted_ = false;
  ConnectOutcome outcome_;
  ConnectionInfo info_;
  absl::Status cause_;
  std::optional<absl::Status> goodbye_;  // kDisconnected is due: no later than goodbye_by_
  absl::Duration goodbye_by_;
  absl::Duration shared_flush_by_;
  std::optional<Contact> contact_;    // until RESET
  uint64_t rnr_received_before_ = 0;  // the port's counters when it was made
  uint64_t rnr_sent_before_ = 0;

  const QpType type_;
  const Facts receive_facts_;  // of a place of receive_ledger_
};

}  // namespace verbena::verbs
