// SPDX-License-Identifier: Apache-2.0
// One-sided bulk data: between memory of this end and memory that the peer lent, in chunks, several
// of them at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "rpc/driver.h"
#include "transport/memory.h"
#include "transport/protection_domain.h"
#include "transport/work_request.h"

namespace verbena::rpc {

class Session;

// Whatever owns the memory of a transfer, for as long as that takes.
class Kept {
 public:
  virtual ~Kept() = default;
};
template <typename Owner>
std::unique_ptr<Kept> Keep(Owner owner) {
  struct Holder final : Kept {
    explicit Holder(Owner its) : owner(std::move(its)) {}
    Owner owner;
  };
  return std::make_unique<Holder>(std::move(owner));
}

// Whoever begins it keeps it until `done` ran. All but the request is the session's.
struct Transfer final : Completer {
  // The request.
  Opcode opcode = Opcode::kRead;  // or kWrite
  RemoteBuffer remote = {};       // exactly as long as `local`
  std::span<std::byte> local = {};
  std::function<void(absl::Status)> done = {};  // leader

  void Complete(const WorkCompletion& wc) override;

  Session* session = nullptr;
  MemoryRegion region = {};  // `local`, for the time of the transfer
  uint64_t posted = 0;       // bytes
  uint32_t in_flight = 0;    // chunks
  absl::Status status = {};  // the first failure; no chunk is posted after it
};

}  // namespace verbena::rpc
