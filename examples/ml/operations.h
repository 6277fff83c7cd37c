// SPDX-License-Identifier: Apache-2.0
// Collective operations as machines that move on when messages have come: they post, they never
// wait. The thread of their group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "examples/ml/link.h"
#include "examples/ml/tensor.h"
#include "transport/protection_domain.h"

namespace ml {

// All ranks as one of them sees them.
struct Circle {
  int rank = 0;
  int size = 1;
  std::vector<std::unique_ptr<Link>> links;  // by rank; one's own is null

  Link& left() const { return *links[static_cast<size_t>((rank + size - 1) % size)]; }
  Link& right() const { return *links[static_cast<size_t>((rank + 1) % size)]; }
};

// Memory of a caller, registered.
struct Place {
  std::span<std::byte> bytes;
  const verbena::MemoryRegion* region = nullptr;

  verbena::Sge slice(size_t offset, size_t length) const {
    return {reinterpret_cast<uint64_t>(bytes.data()) + offset, static_cast<uint32_t>(length),
            region->local_key()};
  }
  verbena::RemoteBuffer remote() const {
    return {reinterpret_cast<uint64_t>(bytes.data()), bytes.size(), region->remote_key()};
  }
};

class Operation {
 public:
  virtual ~Operation() = default;
  // True: it is over. Called again and again, whenever something may have come.
  virtual absl::StatusOr<bool> Advance() = 0;
  // Whose message is awaited; -1: nobody's, only that ours arrive.
  virtual int awaited() const = 0;

 protected:
  Operation(const Circle& circle, uint8_t number) : circle_(circle), number_(number) {}
  // The next message of `peer`; null: not there yet. FailedPrecondition: it is of something else
  // than the peer should be doing. Unavailable: the peer has left.
  absl::StatusOr<const Arrival*> Expect(int peer, Kind kind, size_t length) const;
  // The same of a kWhere, and takes it: a tensor of that many bytes. Empty: not there yet.
  absl::StatusOr<std::optional<verbena::RemoteBuffer>> ExpectWhere(int peer, size_t bytes) const;
  Link& link(int peer) const { return *circle_.links[static_cast<size_t>(peer)]; }

  const Circle& circle_;
  const uint8_t number_;
};

// Few bytes: everybody has everybody's part after log2(size) messages. `out` holds this rank's part
// already. All ranks get the same bits, as addition commutes.
std::unique_ptr<Operation> SmallAllReduce(const Circle& circle, uint8_t number, Dtype dtype,
                                          std::span<std::byte> out);
// `out` holds this rank's block already.
std::unique_ptr<Operation> SmallAllGather(const Circle& circle, uint8_t number,
                                          std::span<std::byte> out);

// Many bytes. Around the ring, in pieces that each rank passes on as soon as it has added its own:
// first parts of sums, into slots, then sums, into the tensors. `in` may be `out`.
std::unique_ptr<Operation> RingAllReduce(const Circle& circle, uint8_t number, Dtype dtype,
                                         const Place& in, const Place& out);
// `out` holds this rank's block already.
std::unique_ptr<Operation> RingAllGather(const Circle& circle, uint8_t number, const Place& out);

}  // namespace ml
