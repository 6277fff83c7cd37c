// SPDX-License-Identifier: Apache-2.0
#include "rpc/envelope.h"

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "proto/envelope.pb.h"

namespace verbena::rpc {
namespace {

constexpr uint32_t kLastCode = static_cast<uint32_t>(absl::StatusCode::kUnauthenticated);

template <typename Message>
bool Parse(std::span<const std::byte> bytes, Message* message) {
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

std::string EncodeHead(const Metadata& metadata) {
  if (metadata.empty()) return "";
  CallHead head;
  head.mutable_metadata()->insert(metadata.begin(), metadata.end());
  return head.SerializeAsString();
}

std::string EncodeEnd(const absl::Status& status, const Metadata& metadata) {
  if (status.ok() && metadata.empty()) return "";
  CallEnd end;
  end.set_message(std::string(status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    (*end.mutable_details())[std::string(url)] = std::string(payload);
  });
  end.mutable_metadata()->insert(metadata.begin(), metadata.end());
  return end.SerializeAsString();
}

const char* DecodeHead(std::span<const std::byte> bytes, Metadata* metadata) {
  CallHead head;
  if (!Parse(bytes, &head)) return "a call's head that does not parse";
  metadata->insert(head.metadata().begin(), head.metadata().end());
  return nullptr;
}

const char* DecodeEnd(std::span<const std::byte> bytes, uint32_t code, absl::Status* status,
                      Metadata* metadata) {
  CallEnd end;
  if (!Parse(bytes, &end)) return "a call's end that does not parse";
  if (code > kLastCode) return "an unknown status code";
  *status = absl::Status(static_cast<absl::StatusCode>(code), end.message());
  for (const auto& [url, payload] : end.details()) status->SetPayload(url, absl::Cord(payload));
  metadata->insert(end.metadata().begin(), end.metadata().end());
  return nullptr;
}

}  // namespace verbena::rpc
