// SPDX-License-Identifier: Apache-2.0
// A queue pair of unreliable datagrams with its socket (docs/decisions/0022-datagrams.md). Owned
// and watched as one with a stream (driven.h); its socket is there from the first to the last.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "fallback/completion.h"
#include "fallback/datagram/queue_pair.h"
#include "fallback/driven.h"
#include "fallback/io/datagrams.h"
#include "fallback/protection_domain.h"
#include "fallback/shared_receive_queue.h"
#include "transport/datagram_checks.h"
#include "transport/provider.h"

namespace verbena::fallback {

class DatagramQueuePair final : public provider::QueuePair, public Driven, datagram::Surroundings {
 public:
  // `own`: the address that it sends from, and takes from the network for; zeros: any of this
  // node's.
  static absl::StatusOr<std::unique_ptr<provider::QueuePair>> Create(
      ProtectionDomain* domain, const QueuePairOptions& options, const Ip& own);
  DatagramQueuePair(ProtectionDomain* domain, const QueuePairOptions& options, const Ip& own,
                    io::Socket socket, const datagram::Config& config);
  ~DatagramQueuePair() override;

  // provider::QueuePair
  absl::Status Close() override;
  PostResult PostSend(std::span<const SendWr> requests) override;
  PostResult PostReceive(std::span<const ReceiveWr> requests) override;
  absl::Status Modify(const QpModify& change) override;
  QpAttributes Query() const override;
  Capabilities capabilities() const override;
  absl::Status Disconnect() override { return provider::HasNoPeer("disconnect"); }
  absl::Status cause() const override { return core_.cause(); }
  ConnectOutcome outcome() const override { return {}; }
  ConnectionInfo connection() const override { return {}; }
  QpCounters counters() const override { return core_.counters(); }
  absl::StatusOr<Contact> contact() override { return provider::HasNoPeer("address"); }
  absl::Status Connect(const Contact&, const ConnectParameters&) override {
    return provider::HasNoPeer("connect");
  }
  absl::Status AttachMulticast(const std::string& group) override;
  absl::Status DetachMulticast(const std::string& group) override;

  absl::Status Attach(const Ip& group);
  absl::Status Detach(const Ip& group);
  uint32_t number() const { return core_.number(); }

  // Driven
  Nanos WorkAndRelease(Why why, Nanos now) override { return Rounds(this, why, now); }
  void SettleAndRelease() override { Release(); }  // datagrams are not acknowledged

 private:
  friend class Driven;  // Work
  // The socket of the groups, which the service reads when nobody else does.
  class GroupSocket final : public Watched {
   public:
    GroupSocket(DatagramQueuePair* owner, io::Socket socket);
    ~GroupSocket() override;
    void OnReady(bool readable, bool writable) override;
    void OnDeadline() override {}
    io::Socket socket() const { return socket_; }
    std::set<Ip> joined;  // owner

   private:
    DatagramQueuePair* const owner_;
    const io::Socket socket_;
  };
  static constexpr size_t kPackets = 8;  // of a receive call
  static constexpr size_t kPacketRoom = sizeof(wire::DatagramHeader) + wire::kMaxDatagramPayload;

  // Driven, Watched
  bool HasStream() const override { return socket_ != io::kNoSocket; }
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override { Drive(Why::kReady); }
  void OnTick() override;
  // datagram::Surroundings
  void OnEvent(EventType type, const absl::Status& why) override;
  void OnSharedLimit() override { srq_->LimitReached(); }
  const datagram::Route* RouteOf(const verbena::AddressHandle* handle) const override;

  // Owner.
  void Work(Why why, Nanos now);
  bool ReceiveSome(io::Socket socket, bool groups);  // whether anything came
  bool SendSome();                                   // whether anything went
  bool IsOwn(const Ip& destination) const { return own_ == Ip{} || own_ == destination; }
  io::Datagrams& datagrams() const { return *device_->hub().world().datagrams(); }

  ProtectionDomain* const domain_;
  SharedReceiveQueue* const srq_;
  void* const context_;
  const Ip own_;
  datagram::QueuePair core_;
  const std::unique_ptr<std::byte[]> room_;  // kPackets of kPacketRoom
  mutable std::atomic<bool> drain_watched_{false};
  std::unique_ptr<GroupSocket> groups_;  // owner
  std::mutex attach_mutex_;              // one at a time
};

}  // namespace verbena::fallback
