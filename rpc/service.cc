// SPDX-License-Identifier: Apache-2.0
#include "rpc/service.h"

namespace verbena::rpc {

absl::Status ThrownByHandler(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(std::move(thrown));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("rpc: the handler threw: ", error.what()));
  } catch (...) {
    return absl::InternalError("rpc: the handler threw");
  }
}

BulkAwaiter PullInto(ServerContext& context, const BulkHandle& from, uint64_t offset,
                     std::span<std::byte> bytes) {
  return BulkAwaiter([&context, from, offset, bytes](ServerContext::Done done, auto) {
    context.Pull(from, offset, bytes, std::move(done));
  });
}

BulkAwaiter PushFrom(ServerContext& context, const BulkHandle& to, uint64_t offset,
                     std::span<const std::byte> bytes) {
  return BulkAwaiter([&context, to, offset, bytes](ServerContext::Done done, auto) {
    context.Push(to, offset, bytes, std::move(done));
  });
}

BulkAwaiter PushBehind(ServerContext& context, const BulkHandle& to, uint64_t offset,
                       std::span<const std::byte> bytes, std::unique_ptr<Kept> kept) {
  return BulkAwaiter(
      [&context, to, offset, bytes](ServerContext::Done done, std::unique_ptr<Kept> owner) {
        context.PushBehind(to, offset, bytes, std::move(owner), std::move(done));
      },
      std::move(kept));
}

}  // namespace verbena::rpc
