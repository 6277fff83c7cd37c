// SPDX-License-Identifier: Apache-2.0
// Tables of message sizes: edges of what a transport treats differently (a word, a cache line, the
// inline limit, a page, a 16-bit length, one frame, many frames).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace verbena::conformance {

struct SizeRow {
  std::string name;
  uint32_t bytes;
};

inline std::vector<SizeRow> Rows(std::vector<uint32_t> sizes) {
  std::vector<SizeRow> rows;
  for (uint32_t size : sizes) rows.push_back({absl::StrCat(size), size});
  return rows;
}

inline std::vector<SizeRow> MessageSizes() {
  constexpr uint32_t kKi = 1024;
  return Rows({0,
               1,
               7,
               8,
               9,
               63,
               64,
               511,
               512,
               513,
               4095,
               4096,
               4097,
               60 * kKi - 1,
               60 * kKi,
               60 * kKi + 1,
               64 * kKi - 1,
               64 * kKi,
               64 * kKi + 1,
               1024 * kKi,
               16 * 1024 * kKi});
}

inline std::vector<SizeRow> InlineSizes() {
  return Rows({0, 1, 7, 8, 31, 63, 64, 65, 127, 128, 255, 256});
}

inline std::vector<SizeRow> EntryCounts() {
  std::vector<uint32_t> counts;
  for (uint32_t count = 1; count <= 16; ++count) counts.push_back(count);
  return Rows(counts);
}

}  // namespace verbena::conformance
