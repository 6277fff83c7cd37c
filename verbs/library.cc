// SPDX-License-Identifier: Apache-2.0
#include "verbs/library.h"

#include <dlfcn.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena::verbs {
namespace {

struct Loaded {
  absl::Status status;
  Library library;
};

absl::Status Missing(const char* file, const char* package, const std::string& what) {
  return absl::NotFoundError(absl::StrCat(file, ": ", what, ". Install the package ", package,
                                          " (Debian, Ubuntu: `apt-get install ", package,
                                          "`; Fedora, RHEL: `dnf install rdma-core`)."));
}

absl::StatusOr<void*> OpenLibrary(const char* file, const char* package) {
  // RTLD_LOCAL: a host program may link another copy, for example a drop-in library.
  void* handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return handle;
  const char* why = dlerror();
  return Missing(file, package,
                 absl::StrCat("cannot be loaded (", why != nullptr ? why : "no reason", ")"));
}

Loaded LoadBoth() {
  Loaded out;
  const absl::StatusOr<void*> ibverbs = OpenLibrary("libibverbs.so.1", "libibverbs1");
  const absl::StatusOr<void*> rdmacm = OpenLibrary("librdmacm.so.1", "librdmacm1");
  if (!ibverbs.ok() || !rdmacm.ok()) {
    out.status = ibverbs.ok() ? rdmacm.status() : ibverbs.status();
    return out;
  }
  Library& library = out.library;
#define VERBENA_LOAD(handle, file, package, member, symbol, version)                             \
  library.member = reinterpret_cast<decltype(library.member)>(dlvsym(handle, #symbol, version)); \
  if (library.member == nullptr && out.status.ok()) {                                            \
    out.status = Missing(file, package,                                                          \
                         "is too old: it has no " #symbol " of version " version                 \
                         " (rdma-core 33 or later is needed)");                                  \
  }
#define VERBENA_LOAD_IBVERBS(member, symbol, version) \
  VERBENA_LOAD(*ibverbs, "libibverbs.so.1", "libibverbs1", member, symbol, version)
#define VERBENA_LOAD_RDMACM(member, symbol, version) \
  VERBENA_LOAD(*rdmacm, "librdmacm.so.1", "librdmacm1", member, symbol, version)
  VERBENA_IBVERBS_SYMBOLS(VERBENA_LOAD_IBVERBS)
  VERBENA_RDMACM_SYMBOLS(VERBENA_LOAD_RDMACM)
#undef VERBENA_LOAD_RDMACM
#undef VERBENA_LOAD_IBVERBS
#undef VERBENA_LOAD
  return out;
}

const Loaded& TheOne() {
  static const Loaded* const loaded = new Loaded(LoadBoth());
  return *loaded;
}

}  // namespace

absl::StatusOr<const Library*> Load() {
  const Loaded& loaded = TheOne();
  if (!loaded.status.ok()) return loaded.status;
  return &loaded.library;
}

const Library& Lib() { return TheOne().library; }

}  // namespace verbena::verbs
