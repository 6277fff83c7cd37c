// SPDX-License-Identifier: Apache-2.0
// What generated code says of a method. Plain value.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "rpc/frame.h"

namespace verbena::rpc {

struct Method {
  const char* name = "";  // "/package.Service/Method"
  uint64_t id = 0;
  // To run it twice is as good as once (idempotency_level in the .proto): it may be tried again.
  bool idempotent = false;

  constexpr Method(const char* full_name, bool may_repeat)
      : name(full_name), id(MethodId(full_name)), idempotent(may_repeat) {}
};

}  // namespace verbena::rpc
