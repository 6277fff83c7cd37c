// SPDX-License-Identifier: Apache-2.0
// Text for people: tables, near misses, and what peers sent made fit for a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace verbena::tool {

// `text` with control characters (line feeds stay) and bytes that are not UTF-8 replaced by '?'.
std::string Printable(absl::string_view text);

// Columns as wide as their widest cell, two blanks between them. Counts bytes.
std::string Table(const std::vector<std::vector<std::string>>& rows);

// The one of `words` that `word` is most likely a slip of; empty: none is near.
std::string Nearest(absl::string_view word, const std::vector<std::string>& words);

// "64 bytes", "1 byte"
std::string Count(int64_t number, absl::string_view unit);

}  // namespace verbena::tool
