// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/service.h"

#include <cstring>
#include <limits>

namespace verbena::volume {
namespace {

constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();

std::span<const uint32_t> CrcsOf(const WriteRequest& request) {
  return {request.crcs().data(), static_cast<size_t>(request.crcs_size())};
}

}  // namespace

VolumeService::Answer<ListResponse> VolumeService::List(rpc::ServerContext&, const ListRequest&) {
  ListResponse response;
  for (Info& info : store_.List()) *response.add_volumes() = std::move(info);
  co_return response;
}

VolumeService::Answer<Info> VolumeService::Open(rpc::ServerContext&, const OpenRequest& request) {
  const auto volume = store_.FindByName(request.name());
  if (!volume.ok()) co_return volume.status();
  co_return (*volume)->info();
}

VolumeService::Answer<Info> VolumeService::Create(rpc::ServerContext&,
                                                  const CreateRequest& request) {
  return store_.Create(request.name(), request.bytes());
}

VolumeService::Answer<RemoveResponse> VolumeService::Remove(rpc::ServerContext&,
                                                            const RemoveRequest& request) {
  const absl::Status status = co_await store_.Remove(request.volume());
  if (!status.ok()) co_return status;
  co_return RemoveResponse();
}

VolumeService::Answer<Info> VolumeService::Resize(rpc::ServerContext&,
                                                  const ResizeRequest& request) {
  return store_.Resize(request.volume(), request.bytes());
}

VolumeService::Answer<ReadResponse> VolumeService::Read(rpc::ServerContext& call,
                                                        const ReadRequest& request) {
  const auto volume = store_.Find(request.volume());
  if (!volume.ok()) co_return volume.status();
  absl::Status status = CheckRange(request.offset(), request.bytes(), kAny, kMostBytes);
  if (!status.ok()) co_return status;
  Buffers::Buffer buffer = co_await buffers_.Take(request.bytes());
  const std::span<std::byte> blocks = buffer.bytes();
  std::vector<uint32_t> crcs;
  status = co_await (*volume)->Read(request.offset(), blocks, &crcs);
  if (!status.ok()) co_return status;
  ReadResponse response;
  response.mutable_crcs()->Add(crcs.begin(), crcs.end());
  if (request.has_into()) {
    auto kept = rpc::Keep(std::move(buffer));
    status = co_await rpc::PushBehind(call, request.into(), 0, blocks, std::move(kept));
    if (!status.ok()) co_return status;
  } else {
    response.set_blocks(blocks.data(), blocks.size());
  }
  co_return response;
}

VolumeService::Answer<Changed> VolumeService::Write(rpc::ServerContext& call,
                                                    const WriteRequest& request) {
  const auto volume = store_.Find(request.volume());
  if (!volume.ok()) co_return volume.status();
  const uint64_t bytes = request.has_from() ? request.bytes() : request.blocks().size();
  absl::Status status = CheckRange(request.offset(), bytes, kAny, kMostBytes);
  if (!status.ok()) co_return status;
  const Buffers::Buffer buffer = co_await buffers_.Take(bytes);
  if (request.has_from()) {
    status = co_await rpc::PullInto(call, request.from(), 0, buffer.bytes());
    if (!status.ok()) co_return status;
  } else {
    std::memcpy(buffer.bytes().data(), request.blocks().data(), bytes);
  }
  // Here and not where they were taken from: what is checked is what goes to the disk.
  status = CheckBlocks(request.offset(), buffer.bytes(), CrcsOf(request));
  if (!status.ok()) co_return status;
  status = co_await (*volume)->Write(request.offset(), buffer.bytes(), CrcsOf(request),
                                     request.attempt());
  if (!status.ok()) co_return status;
  Changed changed;
  changed.set_boot(store_.boot());
  co_return changed;
}

VolumeService::Answer<Changed> VolumeService::Trim(rpc::ServerContext&,
                                                   const TrimRequest& request) {
  const auto volume = store_.Find(request.volume());
  if (!volume.ok()) co_return volume.status();
  absl::Status status = CheckRange(request.offset(), request.bytes(), kAny, kMostTrim);
  if (!status.ok()) co_return status;
  status = co_await (*volume)->Trim(request.offset(), request.bytes(), request.attempt());
  if (!status.ok()) co_return status;
  Changed changed;
  changed.set_boot(store_.boot());
  co_return changed;
}

VolumeService::Answer<FlushResponse> VolumeService::Flush(rpc::ServerContext&,
                                                          const FlushRequest& request) {
  const auto volume = store_.Find(request.volume());
  if (!volume.ok()) co_return volume.status();
  const absl::Status status = co_await (*volume)->Flush();
  if (!status.ok()) co_return status;
  if (request.boot() != 0 && request.boot() != store_.boot()) {
    co_return absl::DataLossError(
        "the server's machine went down since the last flush: writes since then may be lost");
  }
  co_return FlushResponse();
}

}  // namespace verbena::volume
