// SPDX-License-Identifier: Apache-2.0
// Whether this build carries the thread sanitizer: it is slow, and remembers four bytes for one.
#pragma once

namespace verbena::conformance {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#else
inline constexpr bool kThreadSanitizer = false;
#endif

}  // namespace verbena::conformance
