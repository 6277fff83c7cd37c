// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/tensor_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "examples/ml/tensor_store.verbena.h"

namespace ml {

using verbena::rpc::BulkAccess;
using verbena::rpc::BulkHandle;
using verbena::rpc::Channel;
using verbena::rpc::ClientContext;

namespace {

absl::StatusOr<Described> FromWire(const absl::StatusOr<TensorInfo>& info) {
  if (!info.ok()) return info.status();
  const auto dtype = DtypeNamed(info->dtype());
  if (!dtype.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("the server has ", info->dtype(), ", which is not known here"));
  }
  return Described{
      info->name(), *dtype, {info->shape().begin(), info->shape().end()}, info->version()};
}

// No memory cannot be lent, and need not be.
absl::StatusOr<BulkHandle> Lend(Channel& channel, ClientContext& context,
                                std::span<const std::byte> bytes, BulkAccess access) {
  if (bytes.empty()) return BulkHandle();
  return channel.Lend(context, {const_cast<std::byte*>(bytes.data()), bytes.size()}, access);
}

absl::StatusOr<PutTensor> ToWire(Channel& channel, ClientContext& context, const std::string& name,
                                 Dtype dtype, const std::vector<uint64_t>& shape,
                                 std::span<const std::byte> elements) {
  auto lent = Lend(channel, context, elements, BulkAccess::kRead);
  if (!lent.ok()) return lent.status();
  PutTensor request;
  request.mutable_tensor()->set_name(name);
  request.mutable_tensor()->set_dtype(NameOf(dtype));
  request.mutable_tensor()->mutable_shape()->Add(shape.begin(), shape.end());
  *request.mutable_elements() = *std::move(lent);
  return request;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tensors>> Tensors::Open(const std::string& address,
                                                       const TensorsOptions& options) {
  auto channel = Channel::Open(address, options.channel);
  if (!channel.ok()) return channel.status();
  return std::unique_ptr<Tensors>(new Tensors(*std::move(channel), options.deadline));
}

absl::StatusOr<Described> Tensors::Put(const std::string& name, Dtype dtype,
                                       const std::vector<uint64_t>& shape,
                                       std::span<const std::byte> elements,
                                       std::optional<uint64_t> only_version) {
  ClientContext context(deadline_);
  auto request = ToWire(*channel_, context, name, dtype, shape, elements);
  if (!request.ok()) return request.status();
  if (only_version.has_value()) request->set_only_version(*only_version);
  return FromWire(TensorStore::Client(*channel_).Put(*request, context));
}

absl::StatusOr<Described> Tensors::Accumulate(const std::string& name, Dtype dtype,
                                              const std::vector<uint64_t>& shape,
                                              std::span<const std::byte> elements) {
  ClientContext context(deadline_);
  const auto request = ToWire(*channel_, context, name, dtype, shape, elements);
  if (!request.ok()) return request.status();
  return FromWire(TensorStore::Client(*channel_).Accumulate(*request, context));
}

absl::StatusOr<Described> Tensors::Get(const std::string& name, Dtype dtype,
                                       const std::vector<uint64_t>& shape,
                                       std::span<std::byte> into) {
  ClientContext context(deadline_);
  auto lent = Lend(*channel_, context, into, BulkAccess::kWrite);
  if (!lent.ok()) return lent.status();
  GetTensor request;
  request.set_name(name);
  request.set_dtype(NameOf(dtype));
  request.mutable_shape()->Add(shape.begin(), shape.end());
  *request.mutable_into() = *std::move(lent);
  return FromWire(TensorStore::Client(*channel_).Get(request, context));
}

absl::StatusOr<Described> Tensors::Describe(const std::string& name) {
  ClientContext context(deadline_);
  TensorName request;
  request.set_name(name);
  return FromWire(TensorStore::Client(*channel_).Describe(request, context));
}

absl::StatusOr<std::vector<Described>> Tensors::List(const std::string& prefix) {
  ClientContext context(deadline_);
  TensorPrefix request;
  request.set_prefix(prefix);
  const auto list = TensorStore::Client(*channel_).List(request, context);
  if (!list.ok()) return list.status();
  std::vector<Described> all;
  for (const TensorInfo& each : list->tensors()) {
    auto described = FromWire(each);
    if (!described.ok()) return described.status();
    all.push_back(*std::move(described));
  }
  return all;
}

absl::Status Tensors::Delete(const std::string& name) {
  ClientContext context(deadline_);
  TensorName request;
  request.set_name(name);
  return TensorStore::Client(*channel_).Delete(request, context).status();
}

}  // namespace ml
