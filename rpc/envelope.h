// SPDX-License-Identifier: Apache-2.0
// Head and end of a call: metadata, and an absl::Status with its details, to and from bytes.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace verbena::rpc {

using Metadata = std::map<std::string, std::string>;

// Both are empty if there is nothing to say.
std::string EncodeHead(const Metadata& metadata);
std::string EncodeEnd(const absl::Status& status, const Metadata& metadata);

// Null, or what is wrong.
const char* DecodeHead(std::span<const std::byte> bytes, Metadata* metadata);
const char* DecodeEnd(std::span<const std::byte> bytes, uint32_t code, absl::Status* status,
                      Metadata* metadata);

}  // namespace verbena::rpc
