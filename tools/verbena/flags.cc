// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/flags.h"

#include <getopt.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace verbena::tool {
namespace {

std::string Name(const Flag& flag) {
  const std::string dashes = absl::StrCat("--", flag.name);
  return flag.letter == 0 ? dashes : absl::StrCat("-", std::string(1, flag.letter), ", ", dashes);
}

// getopt_long's tables; the codes of long options are 256 + their index.
struct GetoptTables {
  std::string letters = ":";  // a leading colon: tell a missing value from an unknown option
  std::vector<option> longs;

  explicit GetoptTables(const std::vector<Flag>& flags) {
    for (size_t i = 0; i < flags.size(); ++i) {
      const bool takes_value = flags[i].value[0] != 0;
      if (flags[i].letter != 0) absl::StrAppend(&letters, std::string(1, flags[i].letter));
      if (flags[i].letter != 0 && takes_value) letters += ':';
      longs.push_back({flags[i].name, takes_value ? required_argument : no_argument, nullptr,
                       256 + static_cast<int>(i)});
    }
    longs.push_back({nullptr, 0, nullptr, 0});
  }
};

}  // namespace

FlagSet::FlagSet(std::vector<Flag> flags, std::vector<std::string>* rest)
    : flags_(std::move(flags)), rest_(rest) {
  flags_.push_back({'h', "help", "", "show this", &help_wanted_});
}

absl::Status FlagSet::Parse(int argc, char** argv) {
  const GetoptTables tables(flags_);
  opterr = 0;  // we say what is wrong
  optind = 0;  // getopt's global state: begin anew
  while (true) {
    const int code = getopt_long(argc, argv, tables.letters.c_str(), tables.longs.data(), nullptr);
    if (code == -1) break;
    if (code == '?' || code == ':') {
      // optopt is a letter, a long option's code (its value is missing or unwanted), or 0; a long
      // option is then the word that getopt has just passed.
      const std::string what = optopt > 0 && optopt < 256
                                   ? absl::StrCat("-", std::string(1, static_cast<char>(optopt)))
                                   : std::string(argv[optind - 1]);
      if (code == ':') return absl::InvalidArgumentError(absl::StrCat(what, " needs a value"));
      return absl::InvalidArgumentError(
          absl::StrCat("there is no option ", what, optopt >= 256 ? " with a value" : ""));
    }
    auto flag = std::find_if(flags_.begin(), flags_.end(), [&](const Flag& f) {
      return code >= 256 ? &f == &flags_[code - 256] : f.letter == code;
    });
    if (absl::Status status = Set(*flag, optarg); !status.ok()) return status;
    if (help_wanted_) return absl::OkStatus();
  }
  if (rest_ != nullptr) {
    rest_->assign(argv + optind, argv + argc);
  } else if (optind < argc) {
    return absl::InvalidArgumentError(absl::StrCat("`", argv[optind], "` is not an option"));
  }
  return absl::OkStatus();
}

absl::Status FlagSet::Set(const Flag& flag, const char* value) {
  if (bool* const* to = std::get_if<bool*>(&flag.to)) {
    **to = true;
  } else if (std::string* const* to = std::get_if<std::string*>(&flag.to)) {
    **to = value;
  } else if (const Word* to = std::get_if<Word>(&flag.to)) {
    if (std::find(to->words.begin(), to->words.end(), value) == to->words.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Name(flag), ": `", value, "` is none of ", absl::StrJoin(to->words, ", ")));
    }
    *to->value = value;
  } else if (const Number* to = std::get_if<Number>(&flag.to)) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < to->min || number > to->max) {
      return absl::InvalidArgumentError(absl::StrCat(
          Name(flag), ": `", value, "` is not a number from ", to->min, " to ", to->max));
    }
    *to->value = number;
  }
  return absl::OkStatus();
}

std::string FlagSet::Help() const {
  std::string text;
  for (const Flag& flag : flags_) {
    const std::string name = absl::StrCat(flag.letter == 0 ? "    " : "", Name(flag),
                                          flag.value[0] == 0 ? "" : " ", flag.value);
    absl::StrAppendFormat(&text, "  %-26s %s\n", name, flag.help);
  }
  return text;
}

}  // namespace verbena::tool
