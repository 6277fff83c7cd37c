// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/note.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "fallback/wire/extension.h"

namespace verbena::engine {

std::string EncodeNote(const std::vector<Candidate>& candidates) {
  std::string text;
  for (const Candidate& c : candidates) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", c.device, ": ", c.reason);
  }
  if (text.size() > wire::kMaxNote) text.resize(wire::kMaxNote);
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
