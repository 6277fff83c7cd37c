// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/note.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "fallback/wire/extension.h"

namespace verbena::engine {

std::string EncodeNote(const std::vector<Candidate>& candidates) {
  constexpr size_t kLeast = 40;  // bytes of a line that still says something
  std::string text;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const size_t left = wire::kMaxNote - text.size();
    if (left < kLeast) break;
    const Candidate& c = candidates[i];
    const size_t share = std::max(kLeast, left / (candidates.size() - i)) - 1;
    absl::StrAppend(&text, text.empty() ? "" : "\n",
                    Shortened(absl::StrCat(c.device, ": ", c.reason), share));
  }
  return text + static_cast<char>(text.size());
}

std::vector<Candidate> TakeNote(std::span<const std::byte>* data) {
  std::vector<Candidate> note;
  if (data->empty()) return note;
  const auto length = static_cast<size_t>(data->back());
  if (length > wire::kMaxNote || length >= data->size()) return note;
  const auto bytes = data->subspan(data->size() - 1 - length, length);
  *data = data->first(data->size() - 1 - length);
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(": ", 1));
    note.push_back({PlainText(parts.first), false, PlainText(parts.second)});
  }
  return note;
}

}  // namespace verbena::engine
