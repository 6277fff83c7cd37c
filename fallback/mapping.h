// SPDX-License-Identifier: Apache-2.0
// What the kernel says of a piece of our own address space, asked once when it is registered.
#pragma once

#include <cstddef>
#include <span>

namespace verbena::fallback {

struct Mapping {
  bool read_only = false;  // some of it; address space that is merely reserved is not
  // Backed by a file: truncating it turns every touch of the memory into SIGBUS, so that such
  // memory is touched by the kernel on our behalf, never by an instruction of ours.
  bool file = false;
};

// Of all mappings that `memory` lies in. Touches no page. Where the kernel does not tell, the
// answer is the default: ordinary memory.
Mapping QueryMapping(std::span<const std::byte> memory);

}  // namespace verbena::fallback
