// SPDX-License-Identifier: Apache-2.0
// Copies that survive memory which is there no more. A mapped file that somebody truncates raises
// SIGBUS in whoever touches it; the kernel, touching it for us, answers EFAULT. Slower than memcpy,
// so only for regions marked as such (Region::guarded).
#pragma once

#include <cstddef>

namespace verbena::engine {

bool GuardedWrite(std::byte* to_guarded, const std::byte* from, size_t n);
bool GuardedRead(std::byte* to, const std::byte* from_guarded, size_t n);
// Whether all of it may be read, page by page. It may be truncated right behind that: who touches
// it later takes the risk of that moment.
bool GuardedProbe(const std::byte* from_guarded, size_t n);

}  // namespace verbena::engine
