// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/client.h"

#include <algorithm>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"

namespace verbena::volume {
namespace {

uint64_t RandomId() {
  absl::BitGen random;
  return absl::Uniform<uint64_t>(random);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Open(const std::string& address,
                                                     const ClientOptions& options) {
  auto channel = rpc::Channel::Open(address, options.channel);
  if (!channel.ok()) return channel.status();
  return std::unique_ptr<Client>(new Client(*std::move(channel), options));
}

absl::StatusOr<std::vector<Info>> Client::List() {
  rpc::ClientContext context(options_.patience);
  const auto list = calls_.List(ListRequest(), context);
  if (!list.ok()) return list.status();
  return std::vector<Info>(list->volumes().begin(), list->volumes().end());
}

absl::StatusOr<Info> Client::Create(const std::string& name, uint64_t bytes) {
  rpc::ClientContext context(options_.patience);
  CreateRequest request;
  request.set_name(name);
  request.set_bytes(bytes);
  return calls_.Create(request, context);
}

// A server that is just going or coming is waited for, as by reads and writes.
absl::StatusOr<Info> Client::Find(const std::string& name) {
  const absl::Time end = absl::Now() + options_.patience;
  OpenRequest request;
  request.set_name(name);
  rpc::ClientContext first(options_.patience);
  const absl::StatusOr<Info> found = calls_.Open(request, first);
  if (!absl::IsUnavailable(found.status())) return found;
  rpc::ClientContext waits(std::max(end - absl::Now(), absl::ZeroDuration()));
  waits.set_wait_for_ready(true);
  absl::StatusOr<Info> again = calls_.Open(request, waits);
  // The first says more than that the time is over.
  if (absl::IsDeadlineExceeded(again.status())) return found;
  return again;
}

absl::Status Client::Remove(const std::string& name) {
  const auto info = Find(name);
  if (!info.ok()) return info.status();
  rpc::ClientContext context(options_.patience);
  RemoveRequest request;
  request.set_volume(info->id());
  return calls_.Remove(request, context).status();
}

absl::StatusOr<Info> Client::Resize(const std::string& name, uint64_t bytes) {
  const auto info = Find(name);
  if (!info.ok()) return info.status();
  rpc::ClientContext context(options_.patience);
  ResizeRequest request;
  request.set_volume(info->id());
  request.set_bytes(bytes);
  return calls_.Resize(request, context);
}

absl::StatusOr<std::unique_ptr<Volume>> Client::OpenVolume(const std::string& name) {
  auto info = Find(name);
  if (!info.ok()) return info.status();
  return std::unique_ptr<Volume>(new Volume(*this, *std::move(info)));
}

Volume::Volume(Client& client, Info info)
    : client_(client), info_(std::move(info)), writer_(RandomId()) {}

template <typename Response>
absl::StatusOr<Response> Client::Call(const rpc::Method& method,
                                      const google::protobuf::MessageLite& request,
                                      rpc::ClientContext& context) {
  Response response;
  const absl::Status status = channel_->Call(method, request, &response, context);
  if (!status.ok()) return status;
  return response;
}

// A call prepares its request for each try anew, as memory is lent on one connection only, and says
// what became of it.
struct Volume::ReadCall {
  using Response = ReadResponse;
  static constexpr const rpc::Method& kMethod = Volumes::kRead;

  absl::Status Prepare(rpc::ClientContext& context) {
    request.set_volume(volume.info_.id());
    request.set_offset(offset);
    request.set_bytes(into.size());
    if (into.size() <= volume.client_.options_.inline_most) return absl::OkStatus();
    auto lent = volume.client_.channel_->Lend(context, into, rpc::BulkAccess::kWrite);
    if (lent.ok()) *request.mutable_into() = *std::move(lent);
    return lent.status();
  }
  absl::Status Finish(const absl::StatusOr<ReadResponse>& response) const {
    if (!response.ok()) return response.status();
    if (!request.has_into()) {
      if (response->blocks().size() != into.size()) {
        return absl::InternalError("the server sent blocks of another length");
      }
      std::copy_n(reinterpret_cast<const std::byte*>(response->blocks().data()), into.size(),
                  into.data());
    }
    return CheckBlocks(offset, into,
                       {response->crcs().data(), static_cast<size_t>(response->crcs_size())});
  }

  Volume& volume;
  const uint64_t offset;
  const std::span<std::byte> into;
  ReadRequest request = {};
};

struct Volume::WriteCall {
  using Response = Changed;
  static constexpr const rpc::Method& kMethod = Volumes::kWrite;

  absl::Status Prepare(rpc::ClientContext& context) {
    request.set_volume(volume.info_.id());
    request.set_offset(offset);
    if (request.crcs().empty()) {
      const std::vector<uint32_t> crcs = BlockCrcs(from);
      request.mutable_crcs()->Add(crcs.begin(), crcs.end());
    }
    number = volume.try_number_.load();
    request.mutable_attempt()->set_writer(volume.writer_);
    request.mutable_attempt()->set_number(number);
    if (from.size() <= volume.client_.options_.inline_most) {
      request.set_blocks(from.data(), from.size());
      return absl::OkStatus();
    }
    request.set_bytes(from.size());
    // The server only reads it.
    const std::span<std::byte> memory(const_cast<std::byte*>(from.data()), from.size());
    auto lent = volume.client_.channel_->Lend(context, memory, rpc::BulkAccess::kRead);
    if (lent.ok()) *request.mutable_from() = *std::move(lent);
    return lent.status();
  }
  absl::Status Finish(const absl::StatusOr<Changed>& response) {
    if (response.ok()) volume.NoteWritten(*response);
    return response.status();
  }

  Volume& volume;
  const uint64_t offset;
  const std::span<const std::byte> from;
  WriteRequest request = {};
  uint64_t number = 0;
};

struct Volume::TrimCall {
  using Response = Changed;
  static constexpr const rpc::Method& kMethod = Volumes::kTrim;

  absl::Status Prepare(rpc::ClientContext&) {
    request.set_volume(volume.info_.id());
    request.set_offset(offset);
    request.set_bytes(bytes);
    number = volume.try_number_.load();
    request.mutable_attempt()->set_writer(volume.writer_);
    request.mutable_attempt()->set_number(number);
    return absl::OkStatus();
  }
  absl::Status Finish(const absl::StatusOr<Changed>& response) {
    if (response.ok()) volume.NoteWritten(*response);
    return response.status();
  }

  Volume& volume;
  const uint64_t offset;
  const uint64_t bytes;
  TrimRequest request = {};
  uint64_t number = 0;
};

struct Volume::FlushCall {
  using Response = FlushResponse;
  static constexpr const rpc::Method& kMethod = Volumes::kFlush;

  absl::Status Prepare(rpc::ClientContext&) {
    const std::lock_guard guard(volume.lock_);
    before = volume.unflushed_;
    request.set_volume(volume.info_.id());
    request.set_boot(before.boot);
    return absl::OkStatus();
  }
  absl::Status Finish(const absl::StatusOr<FlushResponse>& response) {
    if (!response.ok() && !absl::IsDataLoss(response.status())) return response.status();
    const std::lock_guard guard(volume.lock_);
    Unflushed& now = volume.unflushed_;
    if (now.writes == before.writes) now.boot = 0;
    now.lost = now.lost && !before.lost;  // it is told once
    if (!response.ok()) return response.status();
    if (!before.lost) return absl::OkStatus();
    return absl::DataLossError(
        "the server's machine went down since the last flush: writes since then may be lost");
  }

  Volume& volume;
  FlushRequest request = {};
  Unflushed before = {};
};

// Whether to try once more.
struct Volume::Attempts {
  explicit Attempts(absl::Duration patience) : end(absl::Now() + patience) {}
  absl::Duration left() const { return std::max(end - absl::Now(), absl::ZeroDuration()); }
  bool Again(const absl::Status& status) const {
    const bool may = absl::IsUnavailable(status) || absl::IsAborted(status);
    return may && left() > absl::ZeroDuration();
  }
  const absl::Time end;
};

absl::Status Volume::StillThere(const absl::StatusOr<Info>& found) const {
  if (!found.ok()) return found.status();
  if (found->id() == info_.id()) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("the volume ", info_.name(), " was removed, and made anew"));
}

void Volume::NoteWritten(const Changed& changed) {
  const std::lock_guard guard(lock_);
  ++unflushed_.writes;
  unflushed_.lost |= unflushed_.boot != 0 && unflushed_.boot != changed.boot();
  unflushed_.boot = changed.boot();
}

// All that failed at one time agree on the next number: the first of them makes it.
template <typename Call>
static void NextTry(Call& call, std::atomic<uint64_t>& numbers) {
  if constexpr (requires { call.number; }) {
    uint64_t failed = call.number;
    numbers.compare_exchange_strong(failed, failed + 1);
  }
}

template <typename Call>
absl::Status Volume::Run(Call call) {
  const Attempts attempts(client_.options_.patience);
  for (;;) {
    absl::Status status;
    {
      rpc::ClientContext context(attempts.left());
      status = call.Prepare(context);
      if (status.ok()) {
        const auto response =
            client_.Call<typename Call::Response>(Call::kMethod, call.request, context);
        status = call.Finish(response);
      }
    }
    if (!attempts.Again(status)) return status;
    if (absl::IsAborted(status)) continue;
    NextTry(call, try_number_);
    rpc::ClientContext waits(attempts.left());
    waits.set_wait_for_ready(true);
    OpenRequest again;
    again.set_name(info_.name());
    const absl::Status there = StillThere(client_.calls_.Open(again, waits));
    if (!there.ok() && !attempts.Again(there)) {
      // Which says more than that the time is over.
      return absl::IsDeadlineExceeded(there) ? status : there;
    }
  }
}

template <typename Call>
rpc::Task<absl::Status> Volume::CoRun(Call call) {
  const Attempts attempts(client_.options_.patience);
  for (;;) {
    absl::Status status;
    {
      rpc::ClientContext context(attempts.left());
      status = call.Prepare(context);
      if (status.ok()) {
        rpc::CallAwaiter<typename Call::Response> sent(*client_.channel_, Call::kMethod,
                                                       call.request, context);
        const absl::StatusOr<typename Call::Response> response = co_await sent;
        status = call.Finish(response);
      }
    }
    if (!attempts.Again(status)) co_return status;
    if (absl::IsAborted(status)) continue;
    NextTry(call, try_number_);
    rpc::ClientContext waits(attempts.left());
    waits.set_wait_for_ready(true);
    OpenRequest again;
    again.set_name(info_.name());
    const absl::StatusOr<Info> found = co_await client_.calls_.CoOpen(again, waits);
    const absl::Status there = StillThere(found);
    if (there.ok() || attempts.Again(there)) continue;
    if (absl::IsDeadlineExceeded(there)) co_return status;
    co_return there;
  }
}

absl::Status Volume::Read(uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const auto piece = into.first(std::min<uint64_t>(into.size(), kMostBytes));
    absl::Status status = Run(ReadCall{.volume = *this, .offset = offset, .into = piece});
    if (absl::IsDataLoss(status)) {  // perhaps on its way here
      status = Run(ReadCall{.volume = *this, .offset = offset, .into = piece});
    }
    if (!status.ok()) return status;
    offset += piece.size();
    into = into.subspan(piece.size());
  }
  return absl::OkStatus();
}

absl::Status Volume::Write(uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const auto piece = from.first(std::min<uint64_t>(from.size(), kMostBytes));
    const absl::Status status = Run(WriteCall{.volume = *this, .offset = offset, .from = piece});
    if (!status.ok()) return status;
    offset += piece.size();
    from = from.subspan(piece.size());
  }
  return absl::OkStatus();
}

absl::Status Volume::Trim(uint64_t offset, uint64_t bytes) {
  while (bytes > 0) {
    const uint64_t piece = std::min(bytes, kMostTrim);
    const absl::Status status = Run(TrimCall{.volume = *this, .offset = offset, .bytes = piece});
    if (!status.ok()) return status;
    offset += piece;
    bytes -= piece;
  }
  return absl::OkStatus();
}

absl::Status Volume::Flush() { return Run(FlushCall{.volume = *this}); }

rpc::Task<absl::Status> Volume::CoRead(uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const auto piece = into.first(std::min<uint64_t>(into.size(), kMostBytes));
    absl::Status status;
    for (int tries = 0; tries < 2; ++tries) {
      ReadCall call{.volume = *this, .offset = offset, .into = piece};
      status = co_await CoRun(call);
      if (!absl::IsDataLoss(status)) break;  // else perhaps on its way here
    }
    if (!status.ok()) co_return status;
    offset += piece.size();
    into = into.subspan(piece.size());
  }
  co_return absl::OkStatus();
}

rpc::Task<absl::Status> Volume::CoWrite(uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const auto piece = from.first(std::min<uint64_t>(from.size(), kMostBytes));
    WriteCall call{.volume = *this, .offset = offset, .from = piece};
    const absl::Status status = co_await CoRun(call);
    if (!status.ok()) co_return status;
    offset += piece.size();
    from = from.subspan(piece.size());
  }
  co_return absl::OkStatus();
}

rpc::Task<absl::Status> Volume::CoTrim(uint64_t offset, uint64_t bytes) {
  while (bytes > 0) {
    const uint64_t piece = std::min(bytes, kMostTrim);
    TrimCall call{.volume = *this, .offset = offset, .bytes = piece};
    const absl::Status status = co_await CoRun(call);
    if (!status.ok()) co_return status;
    offset += piece;
    bytes -= piece;
  }
  co_return absl::OkStatus();
}

rpc::Task<absl::Status> Volume::CoFlush() { return CoRun(FlushCall{.volume = *this}); }

}  // namespace verbena::volume
