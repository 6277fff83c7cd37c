// SPDX-License-Identifier: Apache-2.0
// Command-line options in rping's manner (getopt_long): one table says what is parsed and what the
// help shows, so that neither can lack what the other has.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace verbena::tool {

// An integer option's destination and the values that it takes.
struct Number {
  int64_t* value;
  int64_t min;
  int64_t max;
};

// A string option's destination and the words that it takes.
struct Word {
  std::string* value;
  std::vector<std::string> words;
};

struct Flag {
  char letter = 0;         // 0: it has none
  const char* name = "";   // "size" for --size
  const char* value = "";  // what the help calls its value; empty: it takes none
  const char* help = "";
  std::variant<bool*, std::string*, Number, Word> to;
};

// The options of one command. `flags` are listed in this order.
class FlagSet {
 public:
  // `rest`: takes the arguments that are not options.
  explicit FlagSet(std::vector<Flag> flags, std::vector<std::string>* rest = nullptr);

  // argv[0] is the command. InvalidArgument: an unknown option, a value that is missing or out of
  // range, or an argument that is not an option and has no place; the message names it and what is
  // allowed.
  // --help and -h set help_wanted() and end the parsing.
  absl::Status Parse(int argc, char** argv);
  bool help_wanted() const { return help_wanted_; }

  // One line an option, aligned.
  std::string Help() const;
  const std::vector<Flag>& flags() const { return flags_; }

 private:
  absl::Status Set(const Flag& flag, const char* value);

  std::vector<Flag> flags_;
  std::vector<std::string>* const rest_;
  bool help_wanted_ = false;
};

}  // namespace verbena::tool
