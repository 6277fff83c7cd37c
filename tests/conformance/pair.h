// SPDX-License-Identifier: Apache-2.0
// Two connected queue pairs with all that they need, which nearly every case starts from.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tests/conformance/check.h"
#include "tests/conformance/environment.h"
#include "transport/context.h"

namespace verbena::conformance {

inline constexpr Access kEverything = Access::kLocalWrite | Access::kRemoteWrite |
                                      Access::kRemoteRead | Access::kRemoteAtomic |
                                      Access::kWindowBind;

// Zeroed, page-aligned memory of its own, so that a case may also protect it.
class Buffer {
 public:
  explicit Buffer(size_t size);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::span<std::byte> bytes() const { return {data_, size_}; }
  std::span<std::byte> bytes(size_t offset, size_t size) const {
    return bytes().subspan(offset, size);
  }
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  // As mprotect(2): PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE.
  void Protect(int protection) const;
  uint64_t& word(size_t offset) const { return *reinterpret_cast<uint64_t*>(data_ + offset); }

 private:
  std::byte* data_;
  size_t size_;
};

// Content that tells every offset and every `seed` apart.
void Fill(std::span<std::byte> bytes, uint64_t seed);
// Empty if `bytes` are what Fill(seed) wrote, else where they are not.
std::string Mismatch(std::span<const std::byte> bytes, uint64_t seed);
MATCHER_P(HasPattern, seed, "has pattern " + std::to_string(seed)) {
  const std::string where = Mismatch(arg, seed);
  *result_listener << where;
  return where.empty();
}
MATCHER(IsZero, "is all zero") {
  for (size_t i = 0; i < arg.size(); ++i) {
    if (arg[i] == std::byte{0}) continue;
    *result_listener << "which is not at byte " << i;
    return false;
  }
  return true;
}

struct EndOptions {
  QpType type = QpType::kRc;
  QpLimits limits = {};
  Signal signal = Signal::kAll;
  Access qp_access =
      Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead | Access::kRemoteAtomic;
  Access region_access = kEverything;
  size_t memory = 256 << 10;  // bytes
  uint32_t cq_entries = 1024;
  bool separate_receive_cq = false;  // else one queue for both
  bool channel = false;              // the queues report to End::channel
  std::optional<SrqLimits> shared_receive_queue = {};
};

// One side. Members die in the reverse order, children first.
struct End {
  End(Device& device, const EndOptions& options);

  // Another queue pair like `qp`, on the same queues; its events carry `context`.
  QueuePair NewQueuePair(void* context = nullptr);

  Sge slice(uint64_t offset, uint32_t length) const { return region.slice(offset, length); }
  RemoteAddress at(uint64_t offset) const { return region.remote().at(offset); }
  std::span<std::byte> bytes(size_t offset, size_t size) const {
    return buffer.bytes(offset, size);
  }

  Device& device;
  EndOptions options;
  Buffer buffer;
  ProtectionDomain pd;
  MemoryRegion region;  // all of `buffer`
  CompletionChannel channel;
  CompletionQueue cq;          // of sends, and of receives unless they have their own
  CompletionQueue receive_cq;  // use receives()
  SharedReceiveQueue srq;
  QueuePair qp;  // its events carry this End as their context

  CompletionQueue& receives() { return receive_cq.is_open() ? receive_cq : cq; }
};

struct PairOptions {
  EndOptions server = {};
  EndOptions client = {};
  ConnectParameters connect = {};
  AcceptParameters accept = {};
  std::optional<uint8_t> server_min_rnr_timer = {};  // IBTA code
};

struct Pair {
  std::unique_ptr<End> server;
  std::unique_ptr<End> client;
};

// The same on both sides.
PairOptions Both(const EndOptions& options);

// Connects two queue pairs of the test's two contexts and takes both kEstablished events.
void Connect(ConformanceBase& test, QueuePair& client, QueuePair& server,
             const ConnectParameters& connect = {}, const AcceptParameters& accept = {},
             Line line = Line::Here());
Pair MakePair(ConformanceBase& test, const PairOptions& options = {}, Line line = Line::Here());

// A send queue and a receive queue are what cases post to all the time.
void Post(QueuePair& qp, const SendWr& request, Line line = Line::Here());
void PostReceive(QueuePair& qp, const ReceiveWr& request, Line line = Line::Here());

}  // namespace verbena::conformance
