// SPDX-License-Identifier: Apache-2.0
// libverbena_paths.so, which `verbena run` preloads beside the two libraries: programs that look
// for devices as files (/dev/infiniband, /sys/class/infiniband*) find those of libibverbs.so.1. All
// other paths go to the C library as they are.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dropin/device_tree.h"

namespace {

template <typename F>
F* Next(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

// Null: this program has another libibverbs.so.1, or none.
const char* FindRoot() {
  auto* const list_of =
      reinterpret_cast<ibv_device** (*)(int*)>(dlsym(RTLD_DEFAULT, "ibv_get_device_list"));
  auto* const free_list =
      reinterpret_cast<void (*)(ibv_device**)>(dlsym(RTLD_DEFAULT, "ibv_free_device_list"));
  if (list_of == nullptr || free_list == nullptr) return nullptr;
  int count = 0;
  ibv_device** const list = list_of(&count);
  const char* root = nullptr;
  if (list != nullptr && count > 0 && list[0]->_ops._dummy1 != nullptr) {
    root = reinterpret_cast<const char*>(
        list[0]->_ops._dummy1(list[0], verbena::dropin::DeviceTree::kDoor));
  }
  if (list != nullptr) free_list(list);
  return root;
}

// `end` is where a name of that beginning may go on.
bool Begins(const char* path, const char* with, const char* end) {
  const size_t n = strlen(with);
  return strncmp(path, with, n) == 0 && (path[n] == '\0' || strchr(end, path[n]) != nullptr);
}

bool IsOurs(const char* path) {
  return path != nullptr &&
         (Begins(path, "/dev/infiniband", "/") || Begins(path, "/sys/class/infiniband", "/_"));
}

// Where a path leads.
class Path {
 public:
  explicit Path(const char* path) : path_(path) {
    if (!IsOurs(path)) return;
    const int saved = errno;
    static const char* const root = FindRoot();
    errno = saved;
    if (root != nullptr &&
        snprintf(buffer_, sizeof buffer_, "%s%s", root, path) < int{sizeof buffer_}) {
      path_ = buffer_;
    }
  }
  const char* get() const { return path_; }

 private:
  const char* path_;
  char buffer_[PATH_MAX];
};

mode_t ModeOf(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, unsigned))
                                              : mode_t{0};
}

}  // namespace

// `name` of the C library, with `to` in the place of the path.
#define LEAD(result, name, parameters, path, ...)             \
  result name parameters {                                    \
    static auto* const next = Next<result parameters>(#name); \
    const Path to(path);                                      \
    return next(__VA_ARGS__);                                 \
  }

#define LEAD_OPEN(name)                                                \
  int name(const char* path, int flags, ...) {                         \
    static auto* const next = Next<int(const char*, int, ...)>(#name); \
    va_list arguments;                                                 \
    va_start(arguments, flags);                                        \
    const mode_t mode = ModeOf(flags, arguments);                      \
    va_end(arguments);                                                 \
    return next(Path(path).get(), flags, mode);                        \
  }

#define LEAD_OPENAT(name)                                                   \
  int name(int folder, const char* path, int flags, ...) {                  \
    static auto* const next = Next<int(int, const char*, int, ...)>(#name); \
    va_list arguments;                                                      \
    va_start(arguments, flags);                                             \
    const mode_t mode = ModeOf(flags, arguments);                           \
    va_end(arguments);                                                      \
    return next(folder, Path(path).get(), flags, mode);                     \
  }

extern "C" {

LEAD_OPEN(open)
LEAD_OPEN(open64)
LEAD_OPENAT(openat)
LEAD_OPENAT(openat64)

LEAD(FILE*, fopen, (const char* path, const char* mode), path, to.get(), mode)
LEAD(FILE*, fopen64, (const char* path, const char* mode), path, to.get(), mode)
LEAD(DIR*, opendir, (const char* path), path, to.get())
LEAD(int, scandir,
     (const char* path, dirent*** list, int (*select)(const dirent*),
      int (*compare)(const dirent**, const dirent**)),
     path, to.get(), list, select, compare)
LEAD(int, scandir64,
     (const char* path, dirent64*** list, int (*select)(const dirent64*),
      int (*compare)(const dirent64**, const dirent64**)),
     path, to.get(), list, select, compare)

LEAD(int, access, (const char* path, int mode) noexcept, path, to.get(), mode)
LEAD(int, euidaccess, (const char* path, int mode) noexcept, path, to.get(), mode)
LEAD(int, eaccess, (const char* path, int mode) noexcept, path, to.get(), mode)
LEAD(int, faccessat, (int folder, const char* path, int mode, int flags) noexcept, path, folder,
     to.get(), mode, flags)

LEAD(int, stat, (const char* path, struct stat* out) noexcept, path, to.get(), out)
LEAD(int, stat64, (const char* path, struct stat64* out) noexcept, path, to.get(), out)
LEAD(int, lstat, (const char* path, struct stat* out) noexcept, path, to.get(), out)
LEAD(int, lstat64, (const char* path, struct stat64* out) noexcept, path, to.get(), out)
LEAD(int, fstatat, (int folder, const char* path, struct stat* out, int flags) noexcept, path,
     folder, to.get(), out, flags)
LEAD(int, fstatat64, (int folder, const char* path, struct stat64* out, int flags) noexcept, path,
     folder, to.get(), out, flags)
LEAD(int, statx,
     (int folder, const char* path, int flags, unsigned mask, struct statx* out) noexcept, path,
     folder, to.get(), flags, mask, out)

LEAD(char*, realpath, (const char* path, char* resolved) noexcept, path, to.get(), resolved)
LEAD(char*, canonicalize_file_name, (const char* path) noexcept, path, to.get())
LEAD(ssize_t, readlink, (const char* path, char* out, size_t size) noexcept, path, to.get(), out,
     size)
LEAD(ssize_t, readlinkat, (int folder, const char* path, char* out, size_t size) noexcept, path,
     folder, to.get(), out, size)

// What programs call instead that were built with -D_FORTIFY_SOURCE, or before glibc 2.33. The
// struct of the latter is that of today (version 1 of x86-64, 0 of others).
int __open_2(const char* path, int flags) { return open(path, flags); }
int __open64_2(const char* path, int flags) { return open64(path, flags); }
int __openat_2(int folder, const char* path, int flags) { return openat(folder, path, flags); }
int __openat64_2(int folder, const char* path, int flags) { return openat64(folder, path, flags); }
char* __realpath_chk(const char* path, char* resolved, size_t) { return realpath(path, resolved); }
ssize_t __readlink_chk(const char* path, char* out, size_t size, size_t) {
  return readlink(path, out, size);
}
int __xstat(int, const char* path, struct stat* out) { return stat(path, out); }
int __xstat64(int, const char* path, struct stat64* out) { return stat64(path, out); }
int __lxstat(int, const char* path, struct stat* out) { return lstat(path, out); }
int __lxstat64(int, const char* path, struct stat64* out) { return lstat64(path, out); }

}  // extern "C"
