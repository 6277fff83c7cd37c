// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/tensor_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "examples/ml/tensor.h"

namespace ml {

using verbena::rpc::ServerContext;

namespace {

constexpr size_t kLongestName = 1024;
constexpr int kMostDimensions = 64;  // as NumPy has it, and then some

struct Form {
  Dtype dtype;
  size_t bytes;
};

absl::StatusOr<Form> FormOf(const std::string& dtype, const auto& shape) {
  const auto kind = DtypeNamed(dtype);
  if (!kind.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("no tensor has elements of \"", dtype, "\""));
  }
  if (shape.size() > kMostDimensions) return absl::InvalidArgumentError("too many dimensions");
  size_t bytes = SizeOf(*kind);
  for (const uint64_t dimension : shape) {
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) {
      return absl::InvalidArgumentError("the shape's product is too large");
    }
  }
  return Form{*kind, bytes};
}

bool SameForm(const TensorInfo& info, const std::string& dtype, const auto& shape) {
  return info.dtype() == dtype &&
         std::equal(info.shape().begin(), info.shape().end(), shape.begin(), shape.end());
}

absl::Status OtherForm(const TensorInfo& info) {
  return absl::FailedPreconditionError(absl::StrCat(info.name(), " is a tensor of ", info.dtype(),
                                                    " with another shape or kind than asked for"));
}

absl::Status NoTensor(const std::string& name) {
  return absl::NotFoundError(absl::StrCat("there is no tensor ", name));
}

}  // namespace

class TensorServer::Reading {
 public:
  Reading(TensorServer& server, Elements& elements) : server_(&server), elements_(&elements) {
    ++elements.readers;
  }
  Reading(Reading&& other) noexcept
      : server_(other.server_), elements_(std::exchange(other.elements_, nullptr)) {}
  Reading& operator=(Reading&&) = delete;
  ~Reading() {
    if (elements_ == nullptr) return;
    const std::lock_guard lock(server_->lock_);
    if (--elements_->readers > 0) return;
    const size_t bytes = elements_->bytes;
    if (server_->retired_.erase(elements_) == 1) server_->bytes_ -= bytes;
  }

  const TensorInfo& info() const { return elements_->info; }
  std::span<const std::byte> bytes() const {
    return elements_->memory.bytes().first(elements_->bytes);
  }

 private:
  TensorServer* server_;
  Elements* elements_;
};

TensorServer::Elements* TensorServer::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second.get();
}

absl::StatusOr<TensorServer::Reading> TensorServer::Read(const std::string& name) {
  Elements* found = Find(name);
  if (found == nullptr) return NoTensor(name);
  return Reading(*this, *found);
}

void TensorServer::Retire(std::unique_ptr<Elements> old) {
  if (old == nullptr) return;
  if (old->readers == 0) {
    bytes_ -= old->bytes;
  } else {
    const Elements* key = old.get();
    retired_[key] = std::move(old);
  }
}

TensorInfo TensorServer::Replace(const std::string& name, std::unique_ptr<Elements> by) {
  by->info.set_version(++last_version_);
  TensorInfo info = by->info;
  Retire(std::exchange(tensors_[name], std::move(by)));
  return info;
}

absl::Status TensorServer::CheckVersion(const PutTensor& request) const {
  if (!request.has_only_version()) return absl::OkStatus();
  const Elements* now = Find(request.tensor().name());
  const uint64_t version = now == nullptr ? 0 : now->info.version();
  if (version == request.only_version()) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(request.tensor().name(), " is of version ", version,
                                         ", not ", request.only_version()));
}

void TensorServer::AwaitTurn(Lock& lock, const std::string& name) {
  changed_.wait(lock, [&] { return !changing_.contains(name); });
}

// The caller's elements, in memory of their own.
absl::StatusOr<std::unique_ptr<TensorServer::Elements>> TensorServer::Pull(
    ServerContext& call, const PutTensor& request) {
  const TensorInfo& info = request.tensor();
  if (info.name().empty() || info.name().size() > kLongestName) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor's name has 1 to ", kLongestName, " bytes"));
  }
  const auto form = FormOf(info.dtype(), info.shape());
  if (!form.ok()) return form.status();
  if (form->bytes != request.elements().length()) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor of that kind and shape has ",
                                                   form->bytes, " bytes, and ",
                                                   request.elements().length(), " were lent"));
  }
  auto made = std::make_unique<Elements>();
  made->info = info;
  made->bytes = form->bytes;
  {
    const Lock lock(lock_);
    if (form->bytes > max_bytes_ - bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the store holds at most ", max_bytes_, " bytes, and has ", bytes_));
    }
    if (form->bytes > 0) made->memory = Pages(form->bytes);
    bytes_ += form->bytes;
  }
  if (form->bytes == 0) return made;
  const absl::Status pulled = call.Pull(request.elements(), 0, made->memory.bytes());
  if (pulled.ok()) return made;
  const Lock lock(lock_);
  bytes_ -= form->bytes;
  return pulled;
}

absl::StatusOr<TensorInfo> TensorServer::Put(ServerContext& call, const PutTensor& request) {
  auto made = Pull(call, request);
  if (!made.ok()) return made.status();
  Lock lock(lock_);
  AwaitTurn(lock, request.tensor().name());
  if (auto right = CheckVersion(request); !right.ok()) {
    Retire(*std::move(made));
    return right;
  }
  return Replace(request.tensor().name(), *std::move(made));
}

// The sum is made where the caller's elements came to lie, so nobody who reads is disturbed.
absl::StatusOr<TensorInfo> TensorServer::Accumulate(ServerContext& call, const PutTensor& request) {
  auto made = Pull(call, request);
  if (!made.ok()) return made.status();
  const TensorInfo& wanted = request.tensor();
  Lock lock(lock_);
  AwaitTurn(lock, wanted.name());
  absl::Status right = CheckVersion(request);
  const Elements* now = Find(wanted.name());
  if (right.ok() && now == nullptr) right = NoTensor(wanted.name());
  if (right.ok() && !SameForm(now->info, wanted.dtype(), wanted.shape())) {
    right = OtherForm(now->info);
  }
  if (!right.ok()) {
    Retire(*std::move(made));
    return right;
  }
  changing_.insert(wanted.name());  // so this version stays
  lock.unlock();
  const Dtype dtype = *DtypeNamed(wanted.dtype());
  std::byte* sum = (*made)->memory.bytes().data();
  Add(dtype, now->memory.bytes().data(), sum, sum, (*made)->bytes / SizeOf(dtype));
  lock.lock();
  changing_.erase(wanted.name());
  changed_.notify_all();
  return Replace(wanted.name(), *std::move(made));
}

absl::StatusOr<TensorInfo> TensorServer::Get(ServerContext& call, const GetTensor& request) {
  Lock lock(lock_);
  const auto reading = Read(request.name());
  lock.unlock();
  if (!reading.ok()) return reading.status();
  if (!SameForm(reading->info(), request.dtype(), request.shape())) {
    return OtherForm(reading->info());
  }
  if (reading->bytes().size() > 0) {
    if (auto sent = call.Push(request.into(), 0, reading->bytes()); !sent.ok()) return sent;
  }
  return reading->info();
}

absl::StatusOr<TensorInfo> TensorServer::Describe(ServerContext&, const TensorName& request) {
  const Lock lock(lock_);
  const Elements* found = Find(request.name());
  if (found == nullptr) return NoTensor(request.name());
  return found->info;
}

absl::StatusOr<TensorList> TensorServer::List(ServerContext&, const TensorPrefix& request) {
  TensorList list;
  const Lock lock(lock_);
  for (auto at = tensors_.lower_bound(request.prefix());
       at != tensors_.end() && absl::StartsWith(at->first, request.prefix()); ++at) {
    *list.add_tensors() = at->second->info;
  }
  return list;
}

absl::StatusOr<Gone> TensorServer::Delete(ServerContext&, const TensorName& request) {
  Lock lock(lock_);
  AwaitTurn(lock, request.name());
  auto found = tensors_.extract(request.name());
  if (found.empty()) return NoTensor(request.name());
  Retire(std::move(found.mapped()));
  return Gone();
}

}  // namespace ml
