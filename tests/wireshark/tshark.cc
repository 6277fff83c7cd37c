// SPDX-License-Identifier: Apache-2.0
#include "tests/wireshark/tshark.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

// Its output for `file`, with these arguments besides.
std::string Run(const std::string& file, const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {FindTshark(), "-r", file};
  // Heuristics first: the port is any, and may be another protocol's.
  for (const char* on : {"tcp.check_checksum", "ip.check_checksum", "tcp.try_heuristic_first"}) {
    argv.insert(argv.end(), {"-o", absl::StrCat(on, ":TRUE")});
  }
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  const Finished done =
      RunToEnd(argv, {.environment = {absl::StrCat("HOME=", ::testing::TempDir())}});
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_EQ(done.err.find("Lua"), std::string::npos) << done.err;
  return done.out;
}

}  // namespace

std::string FindTshark() {
  for (const char* path : {"/usr/bin/tshark", "/usr/local/bin/tshark"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

std::vector<Row> Dissect(const std::string& file, With with,
                         const std::vector<std::string>& fields) {
  std::vector<std::string> arguments = {"-T", "fields", "-E", "separator=|"};
  if (with == With::kOurLua) {
    arguments.insert(arguments.end(), {"-X", "lua_script:tools/wireshark/verbena.lua"});
  } else {
    // It takes a short Send for the beginning of RPC over RDMA, and then for a broken one.
    arguments.insert(arguments.end(), {"--disable-heuristic", "rpcrdma_iwarp"});
  }
  for (const std::string& field : fields) arguments.insert(arguments.end(), {"-e", field});

  std::vector<Row> rows;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(Run(file, arguments), '\n'))) {
    const std::vector<std::string> values = absl::StrSplit(line, '|');
    if (values.size() != fields.size()) continue;  // the end
    Row row;
    for (size_t i = 0; i < fields.size(); ++i) {
      if (!values[i].empty()) row[fields[i]] = values[i];
    }
    if (!row.empty()) rows.push_back(row);
  }
  return rows;
}

std::vector<Row> Only(const std::vector<Row>& rows, const std::vector<std::string>& fields) {
  std::vector<Row> some;
  for (const Row& row : rows) {
    Row less;
    for (const std::string& field : fields) {
      if (const auto found = row.find(field); found != row.end()) less.insert(*found);
    }
    if (!less.empty()) some.push_back(less);
  }
  return some;
}

Crcs JudgeCrcs(const std::string& file) {
  const std::string all = Run(file, {"-O", "iwarp_mpa"});
  const auto mentions = [&all](const std::string& words) {
    int count = 0;
    for (size_t at = all.find(words); at != std::string::npos; at = all.find(words, at + 1)) {
      ++count;
    }
    return count;
  };
  return {mentions("(Good CRC32)"), mentions("(Bad CRC32")};
}

std::map<std::string, int> Count(const std::vector<Row>& rows, const std::string& field) {
  std::map<std::string, int> counts;
  for (const Row& row : rows) {
    if (const auto found = row.find(field); found != row.end()) ++counts[found->second];
  }
  return counts;
}

}  // namespace verbena::testing
