// SPDX-License-Identifier: Apache-2.0
// One side of verbena_bench: all that it needs of the API, connected to the other side's. On kernel
// TCP unless VERBENA_DEVICE says otherwise.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/sides.h"
#include "transport/context.h"

namespace verbena::bench {

inline constexpr size_t kInbox = 0;  // where the peer writes its ping
inline constexpr size_t kOutbox = 64;

template <typename T>
T Check(absl::StatusOr<T> value) {
  if (!value.ok()) Die(std::string(value.status().message()));
  return *std::move(value);
}
inline void Check(const absl::Status& status) {
  if (!status.ok()) Die(std::string(status.message()));
}
inline void Check(const PostResult& posted) {
  if (!posted.ok()) Check(posted.ToStatus());
}

struct Setup {
  bool events = false;  // of the completion queue, on the channel
  uint32_t send_queue = 1024;
  uint32_t receive_queue = 4096;
  uint32_t receives = 0;      // posted to each queue pair before it connects …
  uint32_t receive_size = 0;  // … of so many bytes
  size_t queue_pairs = 1;     // on one completion queue
  size_t memory = kLarge;     // bytes
  size_t active = 1;          // the first so many; the others have small queues and no receives
};

struct End {
  End(const Options& options, const Setup& setup);

  const Setup setup;
  Context context;
  Device& device = *context.devices()[0];
  std::vector<std::byte> memory = std::vector<std::byte>(setup.memory);
  ProtectionDomain pd = Check(device.AllocateProtectionDomain());
  MemoryRegion region = Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite |
                                                      Access::kRemoteRead | Access::kRemoteAtomic));
  CompletionChannel channel;
  CompletionQueue cq;
  std::vector<QueuePair> qps;
  QueuePair& qp;  // the first
  RemoteBuffer peer = {};
  std::array<WorkCompletion, 64> done = {};
  uint64_t sent = 0;      // completed requests
  uint64_t received = 0;  // completed receives

  // Takes what has completed; how many.
  size_t Poll() {
    const size_t n = cq.Poll(done);
    for (size_t i = 0; i < n; ++i) {
      if (!done[i].ok()) Check(done[i].ToStatus());
      ++(done[i].opcode == WcOpcode::kReceive ? received : sent);
    }
    return n;
  }
  // Sleeps until the channel has an event, in an epoll set of the program's own, or something has
  // completed meanwhile, or a few milliseconds are over: somebody may have stopped the row.
  void Await();

  void PostReceives(QueuePair& to, uint32_t count, uint32_t size);
  std::byte* at(size_t offset) { return &memory[offset]; }
  uint64_t Inbox() {
    return std::atomic_ref(*reinterpret_cast<uint64_t*>(at(kInbox)))
        .load(std::memory_order_acquire);
  }
  Counts Report() const;

 private:
  int epoll_ = -1;  // as long as the process
};

// The server's, and the client's.
std::unique_ptr<End> Accept(const Options& options, Shared& shared, const Setup& setup = {});
std::unique_ptr<End> Connect(const Options& options, const Shared& shared, const Setup& setup = {});

// Both leave together, so that nobody's last completion is an error: the server when it has seen
// that the row is over, the client when all of its requests are complete.
inline bool Stopped(const Shared& shared) { return shared.stop.load(std::memory_order_relaxed); }
void Leave(End& end, Shared& shared);
void Dismiss(End& end, Shared& shared, Result* result);

std::vector<Row> PingRows();    // latency
std::vector<Row> StreamRows();  // bandwidth and rates of one queue pair
std::vector<Row> ManyRows();    // of many

}  // namespace verbena::bench
