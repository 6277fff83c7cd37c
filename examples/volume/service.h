// SPDX-License-Identifier: Apache-2.0
// The service of volume.proto over a Store. Its handlers never block: they may run inline.
#pragma once

#include "absl/status/statusor.h"
#include "examples/volume/buffers.h"
#include "examples/volume/store.h"
#include "examples/volume/volume.verbena.h"
#include "rpc/task.h"

namespace verbena::volume {

class VolumeService final : public Volumes::CoService {
 public:
  template <typename T>
  using Answer = rpc::Task<absl::StatusOr<T>>;

  // `memory`: bytes of blocks on their way, at most.
  VolumeService(Store& store, size_t memory) : store_(store), buffers_(memory) {}

  Answer<ListResponse> List(rpc::ServerContext&, const ListRequest&) override;
  Answer<Info> Open(rpc::ServerContext&, const OpenRequest& request) override;
  Answer<Info> Create(rpc::ServerContext&, const CreateRequest& request) override;
  Answer<RemoveResponse> Remove(rpc::ServerContext&, const RemoveRequest& request) override;
  Answer<Info> Resize(rpc::ServerContext&, const ResizeRequest& request) override;
  Answer<ReadResponse> Read(rpc::ServerContext& call, const ReadRequest& request) override;
  Answer<Changed> Write(rpc::ServerContext& call, const WriteRequest& request) override;
  Answer<Changed> Trim(rpc::ServerContext&, const TrimRequest& request) override;
  Answer<FlushResponse> Flush(rpc::ServerContext&, const FlushRequest& request) override;

 private:
  Store& store_;
  Buffers buffers_;
};

}  // namespace verbena::volume
