// SPDX-License-Identifier: Apache-2.0
#include "verbs/interfaces.h"

#include <dirent.h>

#include <algorithm>
#include <cctype>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace verbena::verbs {
namespace {

// Tables have a thousand entries and more, and are filled from the first on: some for each address.
constexpr int kGids = 64;

// A file's first line; empty where the table has no entry: reading fails then.
std::string Line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return names;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  }
  closedir(directory);
  return names;
}

// "5254:0012:3456:0000:..." and "52:54:00:12:34:56" both begin with 525400123456.
std::string MacOf(const std::string& text) {
  std::string digits;
  for (const char c : text) {
    if (std::isxdigit(static_cast<unsigned char>(c)) != 0 && digits.size() < 12) digits += c;
  }
  return digits.size() == 12 ? digits : "";
}

}  // namespace

std::vector<std::string> InterfacesOf(const std::string& device, bool iwarp,
                                      const std::string& sysfs) {
  std::vector<std::string> all;
  const std::string ports = absl::StrCat(sysfs, "/infiniband/", device, "/ports");
  for (const std::string& port : Names(ports)) {
    for (int gid = 0; gid < kGids; ++gid) {
      const std::string name = Line(absl::StrCat(ports, "/", port, "/gid_attrs/ndevs/", gid));
      if (!name.empty() && std::find(all.begin(), all.end(), name) == all.end()) {
        all.push_back(name);
      }
    }
    const std::string mac = MacOf(Line(absl::StrCat(ports, "/", port, "/gids/0")));
    if (!iwarp || mac.empty()) continue;
    for (const std::string& name : Names(absl::StrCat(sysfs, "/net"))) {
      if (MacOf(Line(absl::StrCat(sysfs, "/net/", name, "/address"))) == mac) all.push_back(name);
    }
  }
  return all;
}

}  // namespace verbena::verbs
