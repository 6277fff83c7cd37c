// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/program_file.h"

#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"

namespace verbena::tool {
namespace {

absl::Status Cannot(const std::string& file, const char* why) {
  return absl::FailedPreconditionError(absl::StrCat(file, " ", why));
}

// The loader ignores LD_PRELOAD then ("secure-execution mode").
absl::Status CheckRights(const std::string& file) {
  struct stat info;
  if (stat(file.c_str(), &info) != 0) return absl::OkStatus();
  const bool other_user = (info.st_mode & S_ISUID) != 0 && info.st_uid != getuid();
  const bool other_group = (info.st_mode & S_ISGID) != 0 && info.st_gid != getgid();
  if (other_user || other_group) {
    return Cannot(file,
                  "is a set-uid or set-gid program, for which the loader ignores LD_PRELOAD. Start "
                  "a copy without that bit (`cp` makes one)");
  }
  if (getuid() != 0 && getxattr(file.c_str(), "security.capability", nullptr, 0) > 0) {
    return Cannot(file,
                  "has file capabilities, for which the loader ignores LD_PRELOAD. Start a copy "
                  "without them (`cp` makes one)");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPreloadable(const std::string& file) {
  if (absl::Status s = CheckRights(file); !s.ok()) return s;
  std::ifstream in(file, std::ios::binary);
  Elf64_Ehdr header;
  if (!in.read(reinterpret_cast<char*>(&header), sizeof header) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return absl::OkStatus();
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64) {
    return Cannot(file, "is a 32-bit program, and the libraries are not");
  }
  in.seekg(static_cast<std::streamoff>(header.e_phoff));
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr part;
    if (!in.read(reinterpret_cast<char*>(&part), sizeof part)) break;
    if (part.p_type == PT_INTERP) return absl::OkStatus();
  }
  return Cannot(file,
                "is statically linked, so no library can be put under it. Link it dynamically with "
                "libibverbs, or use a build of it that is");
}

}  // namespace verbena::tool
