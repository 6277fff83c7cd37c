// SPDX-License-Identifier: Apache-2.0
// Processes that add up and gather tensors together, by one-sided writes between their memories.
//
//   auto board = OpenBoard("folder:/tmp/job");
//   auto group = Group::Join(**board, {.rank = 0, .size = 2});
//   (*group)->AllReduce(Dtype::kFloat32, {bytes}, {bytes});   // in place
//
// All ranks call the same operations in the same order. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "examples/ml/board.h"
#include "examples/ml/operations.h"
#include "examples/ml/tensor.h"
#include "transport/context.h"

namespace ml {

// How a rank waits for the others. kSpin is for ranks that have a core each.
enum class Wait : uint8_t { kSpin, kAdaptive, kBlock };

struct GroupOptions {
  int rank = 0;
  int size = 1;
  Wait wait = Wait::kAdaptive;
  absl::Duration spin = absl::Microseconds(50);  // kAdaptive: about what a wake-up costs
  // Of joining, and of each operation: a rank that is silent for so long is taken for dead.
  absl::Duration deadline = absl::Seconds(30);
  verbena::ContextOptions context = {};  // which devices
};

// Memory of the caller's. Without a region it is registered for the time of the operation, if it is
// large; that takes microseconds on TCP, and pins pages on devices.
struct Source {
  std::span<const std::byte> bytes;
  const verbena::MemoryRegion* region = nullptr;
};
struct Target {
  std::span<std::byte> bytes;
  const verbena::MemoryRegion* region = nullptr;
};

struct GroupCounters {
  uint64_t operations = 0;
  uint64_t messages = 0;       // sent, those that only give credits back among them
  uint64_t bytes_sent = 0;     // of payload
  uint64_t bytes_copied = 0;   // of payload or tensors, by this library; additions are none
  uint64_t registrations = 0;  // of the caller's memory
};

class Group {
 public:
  // Blocks until all ranks are connected with one another. DeadlineExceeded: somebody did not come.
  // FailedPrecondition: the ranks do not have one device in common for all, or it lacks immediate
  // data. AlreadyExists: see Board::Put.
  static absl::StatusOr<std::unique_ptr<Group>> Join(Board& board, const GroupOptions& options);
  // Says goodbye: the others go on, as long as they need this rank no more.
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const { return circle_.rank; }
  int size() const { return circle_.size; }
  const std::string& device() const { return device_->name(); }

  // Memory that is used often. It outlives the region, and the region its operations.
  absl::StatusOr<verbena::MemoryRegion> Register(std::span<const std::byte> memory, bool writable);

  // Every rank's `out` gets the sum of all `in`, the same bits everywhere. `in` is `out`, or apart
  // from it. InvalidArgument: lengths that are different or no multiple of the element's, or no
  // alignment; then nothing has happened. All other errors are the group's end: every later call
  // has the same one, and the other ranks hear of it at once. Unavailable: a rank is gone.
  // DeadlineExceeded. FailedPrecondition: another rank does something else.
  absl::Status AllReduce(Dtype dtype, const Source& in, const Target& out);
  // `out` gets all ranks' `in`, by rank. `in` may be the rank's own block of `out`.
  absl::Status AllGather(const Source& in, const Target& out);
  // Nobody returns before all have called it.
  absl::Status Barrier();

  // The same for event loops, one at a time: begin, then Advance() whenever fd() is readable, until
  // it says true. FailedPrecondition: another one is running.
  absl::Status BeginAllReduce(Dtype dtype, const Source& in, const Target& out);
  absl::Status BeginAllGather(const Source& in, const Target& out);
  // Never blocks. False: not yet, and fd() will be readable when it is worth to call again.
  absl::StatusOr<bool> Advance();
  int fd() const { return channel_.fd(); }
  absl::Duration time_left() const;  // of the running operation

  GroupCounters counters() const;

 private:
  explicit Group(const GroupOptions& options);
  absl::Status Open();
  absl::Status Introduce(Board& board, absl::Time deadline);
  absl::Status Connect(Board& board, absl::Time deadline);
  absl::StatusOr<std::string> Hear(Board& board, const std::string& key, absl::Time deadline);

  absl::Status Ready() const;
  absl::StatusOr<Place> PlaceOf(std::span<std::byte> bytes, const verbena::MemoryRegion* region,
                                verbena::Access access, verbena::MemoryRegion* own);
  absl::Status Begin(absl::StatusOr<std::unique_ptr<Operation>> operation);
  absl::Status Finish();
  absl::StatusOr<bool> Step();  // polls, and moves the operation on
  absl::StatusOr<bool> Move();
  absl::Status Sleep();  // the operation may be over afterwards
  size_t Poll();
  absl::Status OverTime() const;
  absl::Status Fail(absl::Status why);
  void End();

  const GroupOptions options_;
  std::optional<verbena::Context> context_;
  verbena::Device* device_ = nullptr;
  verbena::ProtectionDomain pd_;
  verbena::CompletionChannel channel_;
  verbena::CompletionQueue cq_;
  Circle circle_;
  verbena::MemoryRegion in_region_;  // of the running operation
  verbena::MemoryRegion out_region_;
  std::unique_ptr<Operation> operation_;  // the running one
  int64_t deadline_ns_ = 0;
  uint8_t number_ = 0;
  absl::Status broken_ = {};   // what was found while polling or posting
  bool moved_ = false;         // the last step found completions
  absl::Status failure_ = {};  // not OK: the end
  GroupCounters counters_;
};

}  // namespace ml
