// SPDX-License-Identifier: Apache-2.0
// The log of the library itself: one line each to stderr, `verbena W connect: text`. The
// environment's VERBENA_LOG=level[,module...] says how much; it is read once. Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"  // for VERBENA_LOG
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace verbena {

enum class Level : uint8_t { kError, kWarn, kInfo, kDebug };

// Modules are lower-case words: "api", "connect", "fallback", "verbs".
bool LogEnabled(Level level, absl::string_view module);
// Writes one line if it is enabled. Keeps errno.
void Log(Level level, absl::string_view module, absl::string_view text);

// VERBENA_LOG(kWarn, "connect", "qp ", number, ": …"): the text is put together only if it is
// wanted.
#define VERBENA_LOG(level, module, ...)                                             \
  do {                                                                              \
    if (::verbena::LogEnabled(::verbena::Level::level, module)) {                   \
      ::verbena::Log(::verbena::Level::level, module, ::absl::StrCat(__VA_ARGS__)); \
    }                                                                               \
  } while (false)

// For what strangers can cause at will: ten lines a second, and the next one says how many were
// left out. One for each place, or object.
class LogLimit {
 public:
  // Whether a line may be written at `now`, of a clock that does not go back; what it has to end
  // with.
  std::optional<std::string> Take(absl::Duration now);
  std::optional<std::string> Take();

 private:
  std::mutex mutex_;
  absl::Duration since_ = -absl::InfiniteDuration();
  uint32_t written_ = 0;   // since then
  uint64_t left_out_ = 0;  // since the latest line
};

#define VERBENA_LOG_LIMITED(limit, level, module, ...)                                       \
  do {                                                                                       \
    if (::verbena::LogEnabled(::verbena::Level::level, module)) {                            \
      if (const auto more = (limit).Take(); more.has_value()) {                              \
        ::verbena::Log(::verbena::Level::level, module, ::absl::StrCat(__VA_ARGS__, *more)); \
      }                                                                                      \
    }                                                                                        \
  } while (false)

// What VERBENA_LOG asks for. Of modules that it does not name, warnings and errors remain: a trace
// of one module must not hide what goes wrong in another.
struct LogFilter {
  Level level = Level::kWarn;
  std::vector<std::string> modules;  // none: all
  std::string complaint;             // what was wrong with the text; empty: nothing

  bool Allows(Level wanted, absl::string_view module) const;
};
LogFilter ParseLogFilter(absl::string_view text);

// The line as it is written, without its end; control characters become spaces, since text may
// come from a peer.
std::string LogLine(Level level, absl::string_view module, absl::string_view text);

}  // namespace verbena
