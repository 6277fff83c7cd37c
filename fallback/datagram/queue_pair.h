// SPDX-License-Identifier: Apache-2.0
// A queue pair of unreliable datagrams, sans I/O: packets in, completions and packets out. No
// socket, clock, thread or lock across a call; whoever drives it brings those
// (docs/decisions/0022-datagrams.md).
//
// Two kinds of entry, as in engine/queue_pair.h: posts may come from any thread, everything else
// belongs to the owner.
//
//   post.cc       any thread: checks and queues requests
//   queue_pair.cc owner: requests become packets, packets become receives; states and flushing
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "fallback/engine/completion_ring.h"
#include "fallback/engine/key_table.h"
#include "fallback/engine/limits.h"
#include "fallback/engine/receive_queue.h"
#include "fallback/engine/send_queue.h"
#include "fallback/engine/spin_lock.h"
#include "fallback/wire/datagram.h"
#include "transport/counters.h"
#include "transport/events.h"
#include "transport/ip.h"
#include "transport/qp_state.h"
#include "transport/work_request.h"

namespace verbena::datagram {

// What an address handle stands for.
struct Route {
  Ip ip = {};
  uint32_t scope = 0;
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 0;  // 0: the system's
  bool group = false;
};

// The number of a queue pair: the port of its socket, and a low byte from 0x80 on.
constexpr uint32_t NumberOf(uint16_t port, uint8_t random) {
  return uint32_t{port} << 8 | 0x80 | (random & 0x7fu);
}
constexpr uint16_t PortOf(uint32_t number) { return static_cast<uint16_t>(number >> 8); }
inline constexpr uint16_t kGroupPort = 14791;  // of all members of all groups
inline constexpr uint32_t kGroupNumber = 0xffffff;
inline constexpr uint32_t kOwnQkey = 0x80000000;

class Surroundings {
 public:
  virtual ~Surroundings() = default;
  virtual void OnEvent(EventType type, const absl::Status& why) = 0;
  virtual void OnSharedLimit() = 0;
  // Of a post, on its thread. Null: not a handle of this device's.
  virtual const Route* RouteOf(const AddressHandle* handle) const = 0;
};

struct Config {
  uint32_t number = 0;
  uint32_t domain = 0;
  uint32_t receive_domain = 0;  // of the receives: a shared queue has its own (IBTA 10.2.9)
  QpLimits limits;
  bool signal_all = true;
  engine::CompletionRing* send_ring = nullptr;
  engine::CompletionRing* receive_ring = nullptr;
  engine::ReceiveQueue* shared_receives = nullptr;  // null: a receive queue of its own
  engine::KeyTable* keys = nullptr;
  Surroundings* surroundings = nullptr;
};

// One packet to send.
struct Parcel {
  Route to;
  uint16_t port = 0;
  std::span<const iovec> pieces;
};

class QueuePair {
 public:
  static constexpr size_t kBatch = 16;  // packets of a Gather

  explicit QueuePair(const Config& config);

  // --- any thread
  PostResult PostSend(std::span<const SendWr> requests);
  PostResult PostReceive(std::span<const ReceiveWr> requests, bool* wake);
  QpState state() const { return state_.load(std::memory_order_acquire); }
  uint32_t number() const { return config_.number; }
  uint64_t outstanding() const { return sq_.tail() - sq_.head(); }
  QpAttributes Query() const;
  QpCounters counters() const;
  absl::Status cause() const;

  // --- owner
  // What to send next, until Sent. A request whose memory cannot be read fails, and ends it.
  std::span<const Parcel> Gather();
  void Sent(size_t parcels);  // the first of them have gone, and their requests are complete
  // A packet has come; `to_group`: to one that this queue pair is attached to.
  void Received(std::span<const std::byte> packet, const wire::PacketFacts& facts, bool to_group);
  void Dropped() { dropped_other_.Add(); }  // a packet that is not even looked at
  void CountSendCall(size_t bytes);
  void CountReceiveCall() { receive_calls_.Add(); }

  absl::Status Modify(const QpModify& change);
  void Fail(const absl::Status& why);  // to ERR, with an event
  void FlushPosted();                  // in ERR and SQE: what was posted since

 private:
  struct Entry {
    uint64_t id = 0;
    Route to;
    uint32_t qp_number = 0;
    uint32_t qkey = 0;
    uint32_t immediate = 0;
    uint32_t length = 0;
    uint8_t sge_count = 0;
    bool has_immediate = false;
    bool solicited = false;
    bool signaled = false;
    bool is_inline = false;
  };
  struct Frame {
    wire::DatagramHeader header;
    std::array<iovec, engine::kMaxSge + 1> pieces;
  };

  PostError CheckPost(const SendWr& wr, uint64_t* length) const;
  void Enqueue(uint64_t position, const SendWr& wr, uint64_t length);
  int Pieces(uint64_t position, Frame* frame);  // -1: a local key does not allow it
  bool TakeReceive(uint32_t payload);
  bool Scatter(std::span<const std::byte> grh, std::span<const std::byte> payload);
  void CompleteReceive(WorkCompletion& wc, bool solicited);
  void FailReceive(WcStatus status);
  void Complete(const Entry& entry, WcStatus status);
  void FailSend();
  void FlushSends();
  void FlushReceives();
  void EnterError(const absl::Status& why);
  void SetCause(const absl::Status& why);
  void SetState(QpState state) { state_.store(state, std::memory_order_release); }
  void ReportDrained();
  void Reset();

  const Config config_;
  std::atomic<QpState> state_{QpState::kInit};
  std::atomic<uint32_t> qkey_{0};
  std::atomic<bool> drained_reported_{false};

  std::atomic<uint64_t> signaled_{0};  // behind the latest request that made a completion
  std::atomic<uint64_t> polled_{0};    // behind the latest one whose completion was polled
  engine::RequestQueue<Entry> sq_;
  std::unique_ptr<Frame[]> frames_;
  std::array<Parcel, kBatch> parcels_;

  std::unique_ptr<engine::ReceiveQueue> own_receives_;
  engine::ReceiveQueue* const receives_;
  engine::Receive current_;
  engine::Recent source_region_, target_region_;

  mutable engine::SpinLock cause_lock_;
  absl::Status cause_;
  std::atomic<uint64_t> sends_posted_{0};
  engine::Counter send_completions_, receive_completions_, bytes_sent_, bytes_received_,
      send_calls_, receive_calls_, dropped_no_receive_, dropped_qkey_, dropped_other_;
};

}  // namespace verbena::datagram
