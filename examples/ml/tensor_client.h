// SPDX-License-Identifier: Apache-2.0
// Named tensors on a server: elements go straight between the caller's memory and the server's.
//
//   auto tensors = Tensors::Open("parameters:7600");
//   (*tensors)->Put("layer1", Dtype::kFloat32, {128, 64}, bytes);
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "examples/ml/tensor.h"
#include "rpc/channel.h"

namespace ml {

struct Described {
  std::string name;
  Dtype dtype = Dtype::kFloat32;
  std::vector<uint64_t> shape;
  uint64_t version = 0;
};

struct TensorsOptions {
  absl::Duration deadline = absl::Seconds(30);  // of each call
  verbena::rpc::ChannelOptions channel = {};
};

// Any thread; all of it blocks. Errors are those of docs/rpc.md and of the service:
// InvalidArgument (bytes that do not fit the shape), NotFound, FailedPrecondition (of another dtype
// or shape), Aborted (of another version), ResourceExhausted (the store is full).
class Tensors {
 public:
  static absl::StatusOr<std::unique_ptr<Tensors>> Open(const std::string& address,
                                                       const TensorsOptions& options = {});

  // With `only_version`: only if that is the one now, 0 if there is none.
  absl::StatusOr<Described> Put(const std::string& name, Dtype dtype,
                                const std::vector<uint64_t>& shape,
                                std::span<const std::byte> elements,
                                std::optional<uint64_t> only_version = {});
  absl::StatusOr<Described> Accumulate(const std::string& name, Dtype dtype,
                                       const std::vector<uint64_t>& shape,
                                       std::span<const std::byte> elements);
  // `into` is as long as a tensor of that dtype and shape, and the tensor is one.
  absl::StatusOr<Described> Get(const std::string& name, Dtype dtype,
                                const std::vector<uint64_t>& shape, std::span<std::byte> into);
  absl::StatusOr<Described> Describe(const std::string& name);
  absl::StatusOr<std::vector<Described>> List(const std::string& prefix = "");
  absl::Status Delete(const std::string& name);

 private:
  Tensors(std::unique_ptr<verbena::rpc::Channel> channel, absl::Duration deadline)
      : channel_(std::move(channel)), deadline_(deadline) {}

  const std::unique_ptr<verbena::rpc::Channel> channel_;
  const absl::Duration deadline_;
};

}  // namespace ml
