// SPDX-License-Identifier: Apache-2.0
#include "dropin/device_tree.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dropin/device.h"
#include "transport/log.h"

namespace verbena::dropin {
namespace {

struct File {
  std::string path;  // below the root
  std::string text;
};

// Eight groups of four digits, as sysfs prints a GID; a GUID is the second half of one.
std::string Groups(const uint8_t* bytes, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; i += 2) {
    absl::StrAppendFormat(&out, "%s%02x%02x", i == 0 ? "" : ":", bytes[i], bytes[i + 1]);
  }
  return out;
}

void AddDevice(const Device& device, std::vector<File>* files) {
  const std::string at = absl::StrCat("sys/class/infiniband/", device.name, "/");
  const std::string port = at + "ports/1/";
  const ibv_gid gid = device.gid();
  const uint64_t number = device.guid();
  uint8_t bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof bytes);
  const std::string guid = Groups(bytes, sizeof bytes);
  const std::vector<File> own = {
      {at + "node_type", "1: CA\n"},
      {at + "node_desc", absl::StrCat(device.name, "\n")},
      {at + "node_guid", guid + "\n"},
      {at + "sys_image_guid", guid + "\n"},
      {at + "fw_ver", "0\n"},
      {port + "state", "4: ACTIVE\n"},
      {port + "phys_state", "5: LinkUp\n"},
      {port + "link_layer", "Ethernet\n"},
      {port + "rate", "100 Gb/sec (4X EDR)\n"},
      {port + "lid", "0x0\n"},
      {port + "sm_lid", "0x0\n"},
      {port + "lid_mask_count", "0\n"},
      {port + "cap_mask", "0x00010000\n"},
      {port + "gids/0", Groups(gid.raw, sizeof gid.raw) + "\n"},
      {port + "gid_attrs/types/0", "RoCE v2\n"},
      {port + "gid_attrs/ndevs/0", device.interface() + "\n"},
      {port + "pkeys/0", "0xffff\n"},
  };
  files->insert(files->end(), own.begin(), own.end());
  const std::string verbs = absl::StrCat("sys/class/infiniband_verbs/", device.dev_name, "/");
  files->push_back({verbs + "ibdev", absl::StrCat(device.name, "\n")});
  files->push_back({verbs + "abi_version", "1\n"});
}

// Programs ask whether it is a character device that they may open, and do nothing with it.
void AddNode(const std::string& name, std::vector<File>* links) {
  links->push_back({absl::StrCat("dev/infiniband/", name), "/dev/null"});
}

uint64_t Hash(const std::vector<File>& files) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325;
  for (const File& each : files) {
    for (const char c : each.path + each.text) {
      h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3;
    }
  }
  return h;
}

// Nobody else may have put it there.
bool MakeOwn(const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) == 0) return true;
  struct stat info;
  return errno == EEXIST && lstat(folder.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
         info.st_uid == geteuid() && (info.st_mode & 077) == 0;
}

// A file that is there is whole: it gets its name when it has been written.
bool Write(const std::string& root, const File& file, bool link) {
  const std::string path = absl::StrCat(root, "/", file.path);
  struct stat info;
  if (lstat(path.c_str(), &info) == 0) return true;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const std::string early = absl::StrCat(path, ".", getpid());
  if (link) return symlink(file.text.c_str(), path.c_str()) == 0 || errno == EEXIST;
  const int fd = open(early.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
  if (fd < 0) return false;
  const bool written =
      write(fd, file.text.data(), file.text.size()) == static_cast<ssize_t>(file.text.size());
  close(fd);
  return written && rename(early.c_str(), path.c_str()) == 0;
}

bool WriteAll(const std::string& root, const std::vector<File>& files,
              const std::vector<File>& links) {
  if (!MakeOwn(root)) return false;
  for (const File& each : files) {
    if (!Write(root, each, false)) return false;
  }
  for (const File& each : links) {
    if (!Write(root, each, true)) return false;
  }
  return true;
}

// Its name is that of its content, so that it need not change, and nobody has to remove it while
// another process may look.
std::string Make() {
  std::vector<File> files = {{"sys/class/infiniband_verbs/abi_version", "6\n"}};
  std::vector<File> links;
  for (const Device* each : Device::All()) {
    AddDevice(*each, &files);
    AddNode(each->dev_name, &links);
  }
  AddNode("rdma_cm", &links);
  const std::string name = absl::StrFormat("verbena-%d-%016x", geteuid(), Hash(files));
  for (const char* variable : {"XDG_RUNTIME_DIR", "TMPDIR", ""}) {
    const char* const folder = *variable == '\0' ? "/tmp" : std::getenv(variable);
    if (folder == nullptr) continue;
    const std::string root = absl::StrCat(folder, "/", name);
    if (WriteAll(root, files, links)) return root;
  }
  VERBENA_LOG(kWarn, "dropin", "no folder can be made for /dev/infiniband and ",
              "/sys/class/infiniband: programs that look there find nothing. Let TMPDIR name one "
              "that can be written");
  return {};
}

}  // namespace

const char* DeviceTree::Root() {
  static const auto* const root = new std::string(Make());
  return root->empty() ? nullptr : root->c_str();
}

}  // namespace verbena::dropin
