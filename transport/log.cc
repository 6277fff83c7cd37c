// SPDX-License-Identifier: Apache-2.0
#include "transport/log.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace verbena {
namespace {

struct LevelName {
  const char* name;
  Level level;
};
constexpr LevelName kLevels[] = {{"error", Level::kError},
                                 {"warn", Level::kWarn},
                                 {"info", Level::kInfo},
                                 {"debug", Level::kDebug}};

// One system call for each line, so that lines of many threads and processes do not mix.
void Write(Level level, absl::string_view module, absl::string_view text) {
  const int saved = errno;
  std::string line = LogLine(level, module, text);
  line.push_back('\n');
  // Where the log itself cannot be written there is nobody to tell.
  (void)!write(STDERR_FILENO, line.data(), line.size());
  errno = saved;
}

// Never destroyed: service threads may log while the process exits.
const LogFilter& Filter() {
  static const LogFilter* const filter = [] {
    const char* text = std::getenv("VERBENA_LOG");
    auto* made = new LogFilter(ParseLogFilter(text == nullptr ? "" : text));
    if (!made->complaint.empty()) Write(Level::kWarn, "log", made->complaint);
    return made;
  }();
  return *filter;
}

}  // namespace

std::optional<std::string> LogLimit::Take(absl::Duration now) {
  constexpr uint32_t kLines = 10;
  const std::lock_guard lock(mutex_);
  if (now - since_ >= absl::Seconds(1)) {
    since_ = now;
    written_ = 0;
  }
  if (written_ == kLines) {
    ++left_out_;
    return std::nullopt;
  }
  ++written_;
  const uint64_t left_out = std::exchange(left_out_, 0);
  return left_out == 0 ? "" : absl::StrCat(" (", left_out, " lines like this were left out)");
}

std::optional<std::string> LogLimit::Take() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return Take(absl::DurationFromTimespec(now));
}

bool LogFilter::Allows(Level wanted, absl::string_view module) const {
  const bool named =
      modules.empty() || std::find(modules.begin(), modules.end(), module) != modules.end();
  return wanted <= (named ? level : std::min(level, Level::kWarn));
}

LogFilter ParseLogFilter(absl::string_view text) {
  LogFilter filter;
  std::vector<std::string> words = absl::StrSplit(text, ',');
  for (std::string& word : words) {
    word = absl::AsciiStrToLower(absl::StripAsciiWhitespace(word));
  }
  for (size_t i = 1; i < words.size(); ++i) {
    if (!words[i].empty()) filter.modules.push_back(words[i]);
  }
  if (words[0].empty()) return filter;
  for (const LevelName& known : kLevels) {
    if (words[0] != known.name) continue;
    filter.level = known.level;
    return filter;
  }
  filter.complaint =
      absl::StrCat("VERBENA_LOG=", text, ": no level `", words[0],
                   "`; warnings and errors are logged. Use error, warn, info or debug, "
                   "then modules if you like: VERBENA_LOG=debug,connect");
  return filter;
}

std::string LogLine(Level level, absl::string_view module, absl::string_view text) {
  std::string line = absl::StrCat("verbena ", std::string(1, "EWID"[static_cast<int>(level)]), " ",
                                  module, ": ", text);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, ' ');
  return line;
}

bool LogEnabled(Level level, absl::string_view module) { return Filter().Allows(level, module); }

void Log(Level level, absl::string_view module, absl::string_view text) {
  if (LogEnabled(level, module)) Write(level, module, text);
}

}  // namespace verbena
