// SPDX-License-Identifier: Apache-2.0
#include "transport/options.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace verbena {

const char* RdmaName(Rdma rdma) {
  switch (rdma) {
    case Rdma::kOff:
      return "off";
    case Rdma::kAuto:
      return "auto";
    case Rdma::kRequired:
      return "required";
  }
  return "?";
}

std::string PlainText(absl::string_view text) {
  std::string plain(text);
  for (char& c : plain) {
    if (c < ' ' || c > '~') c = '?';
  }
  return plain;
}

std::string Shortened(absl::string_view text, size_t most) {
  constexpr absl::string_view kMore = "...";
  if (text.size() <= most) return std::string(text);
  const size_t room = most - std::min(most, kMore.size());
  const size_t space = text.substr(0, room + 1).rfind(' ');
  const size_t end = space == absl::string_view::npos || space < room / 2 ? room : space;
  return absl::StrCat(text.substr(0, end), kMore.substr(0, most - end));
}

std::string Explain(const ConnectionInfo& info) {
  std::string chosen = "an unnamed device";
  std::string passed_over;
  for (const Candidate& candidate : info.candidates) {
    std::string text = candidate.reason.empty()
                           ? candidate.device
                           : absl::StrCat(candidate.device, " (", candidate.reason, ")");
    if (candidate.chosen) {
      chosen = std::move(text);
    } else {
      absl::StrAppend(&passed_over, "; not ", text);
    }
  }
  return chosen + passed_over;
}

}  // namespace verbena
