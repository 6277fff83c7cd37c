// SPDX-License-Identifier: Apache-2.0
// One end of a measurement: queue pairs over one completion queue, memory in PerfLayout, and what
// was agreed. One thread. Nothing is allocated between Prepare and the end of a leg.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tools/verbena/buffer.h"
#include "tools/verbena/perf_wire.h"
#include "tools/verbena/stats.h"
#include "transport/completion_queue.h"
#include "transport/device.h"
#include "transport/protection_domain.h"
#include "transport/queue_pair.h"
#include "transport/work_completion.h"

namespace verbena::tool {

// How one end posts.
struct PerfPosting {
  bool server = false;     // it takes what is sent in modes bw and rate
  uint32_t list = 1;       // at most so many a post
  bool last_only = false;  // one completion a post, of the last
  bool swap = false;       // op atomic: CompareSwap instead of FetchAdd
};

class PerfEnd {
 public:
  // Memory registered and receives posted: ready to be connected.
  static absl::StatusOr<std::unique_ptr<PerfEnd>> Make(Device& device, const PerfRequest& request,
                                                       const PerfPosting& posting,
                                                       absl::Duration patience);

  const PerfRequest& request() const { return request_; }
  const PerfPosting& posting() const { return posting_; }
  QueuePair& qp(uint32_t index) { return qps_[index]; }
  uint32_t queue_pairs() const { return request_.queue_pairs; }
  RemoteBuffer lent() const { return data_.region().remote(); }
  void set_peer(const RemoteBuffer& peer) { peer_ = peer; }  // before the first Prepare

  // The agreed operation on `size` bytes from now on, and no stamp landed.
  void Prepare(uint32_t size);

  // The rest answers false when the end has failed: see status(), and stop.

  // Posts the operation `count` times (at most posting().list) on a queue pair, one doorbell.
  bool Post(uint32_t index, uint32_t count);
  // Receives in place of those that the queue pair's peer took.
  bool Restock(uint32_t index);
  // Takes completions, or sleeps until some come (PerfRequest::events). Fails after the patience
  // without a completion or a call of Progressed().
  bool Turn();
  void Progressed() { idle_turns_ = 0; }
  // Sleeps until completions come, and takes them; at most `longest`, which is no failure.
  bool Nap(absl::Duration longest);

  // OK, or why the connection failed, or DeadlineExceeded.
  const absl::Status& status() const { return status_; }
  // Of the latest Turn or Nap. The queue pair of one: QpOf.
  std::span<const WorkCompletion> done() const { return std::span(done_).first(count_); }
  static uint32_t QpOf(const WorkCompletion& done) { return static_cast<uint32_t>(done.id); }

  uint32_t flying(uint32_t index) const { return flying_[index]; }  // posted, not complete
  uint32_t owed(uint32_t index) const { return owed_[index]; }      // receives to be restocked
  uint64_t completed() const { return completed_; }                 // operations
  uint32_t restock_at() const { return restock_at_; }
  // Messages that came and nobody took account of; the latest one's queue pair.
  uint64_t waiting() const { return receives_ - taken_; }
  void Take(uint64_t messages) { taken_ += messages; }
  uint32_t latest() const { return latest_; }

  // The byte of the landing area that is written last, for write latency, and what goes into the
  // peer's: `stamp` in the last byte of the source.
  uint8_t Landed() const;
  void Stamp(uint8_t stamp);

  // A byte to a queue pair's peer: receives are there for what it may send next.
  bool Credit(uint32_t index) { return Restock(index) && SendMessage(index, 1); }

  // Control messages of kPerfControlBytes, on the first queue pair.
  bool Say(absl::string_view message);
  absl::StatusOr<std::string> Hear();

 private:
  absl::Status MakeQueues(Device& device);
  bool Account(size_t count);
  bool CheckPatience();
  bool SendMessage(uint32_t index, uint32_t bytes);
  absl::Status RefusedPost(uint32_t index, const PostResult& refused);

  PerfRequest request_;
  PerfPosting posting_;
  absl::Duration patience_;
  PerfLayout layout_{0};
  RemoteBuffer peer_;
  uint32_t size_ = 1;
  uint32_t restock_at_ = 1;

  // In this order: queue pairs go first, then what they use.
  ProtectionDomain pd_;
  Buffer data_;
  CompletionChannel channel_;
  CompletionQueue cq_;
  std::vector<QueuePair> qps_;

  std::vector<SendWr> batch_;  // the operation, made once
  uint32_t batch_qp_ = 0;      // that the batch's ids name
  std::vector<ReceiveWr> receive_batch_;
  uint32_t receive_batch_qp_ = 0;

  std::array<WorkCompletion, 64> done_;  // a member: to make them anew costs more than a poll
  size_t count_ = 0;
  std::vector<uint32_t> flying_;
  std::vector<uint32_t> owed_;
  uint64_t completed_ = 0;
  uint64_t receives_ = 0;
  uint64_t taken_ = 0;
  uint32_t latest_ = 0;
  uint32_t idle_turns_ = 0;  // since `progressed_`
  Clock::time_point progressed_;
  absl::Status status_;
};

}  // namespace verbena::tool
