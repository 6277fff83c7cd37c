// SPDX-License-Identifier: Apache-2.0
// A plugin for nbdkit(1): NBD clients of this machine, which know nothing of us, get volumes of a
// volume_server elsewhere. One connection to it serves all of them, and is made anew when it is
// lost.
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/strings/numbers.h"
#include "examples/volume/client.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

namespace {

using verbena::volume::Client;
using verbena::volume::ClientOptions;
using verbena::volume::kBlock;
using verbena::volume::Volume;

// What the command line says, and what lives as long as nbdkit serves. Threads of nbdkit share it.
struct Plugin {
  std::string server = "localhost:7500";
  std::string volume;  // empty: the NBD client's export name says
  ClientOptions options;

  std::unique_ptr<Client> client;
  std::mutex lock;
  // One for all NBD connections to it: a flush on one is for the writes of all.
  std::map<std::string, std::unique_ptr<Volume>> volumes;
};
Plugin* plugin = nullptr;  // from load to unload

int ErrnoOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return ENOSPC;
    case absl::StatusCode::kPermissionDenied:
      return EROFS;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return EINVAL;
    case absl::StatusCode::kNotFound:
      return ENODEV;
    case absl::StatusCode::kDeadlineExceeded:
      return ETIMEDOUT;
    default:
      return EIO;
  }
}

int Result(const absl::Status& status) {
  if (status.ok()) return 0;
  nbdkit_error("verbena: %s", std::string(status.message()).c_str());
  nbdkit_set_error(ErrnoOf(status));
  return -1;
}

bool WholeBlocks(uint32_t count, uint64_t offset) {
  if (count % kBlock == 0 && offset % kBlock == 0) return true;
  nbdkit_error(
      "verbena: requests have to be of whole blocks; --filter=blocksize minblock=4096 in "
      "front of this plugin makes them so");
  nbdkit_set_error(EINVAL);
  return false;
}

Volume& Of(void* handle) { return *static_cast<Volume*>(handle); }

void Load() { plugin = new Plugin; }

void Unload() {
  delete plugin;
  plugin = nullptr;
}

// Before the destructors of libraries that the connection's threads use.
void Cleanup() {
  plugin->volumes.clear();
  plugin->client.reset();
}

int Config(const char* key, const char* value) {
  const std::string name = key;
  int number = 0;
  if (name == "server") {
    plugin->server = value;
  } else if (name == "volume") {
    plugin->volume = value;
  } else if (name == "patience" || name == "spin" || name == "inline") {
    if (!absl::SimpleAtoi(value, &number) || number < 0) {
      nbdkit_error("%s=%s: a number", key, value);
      return -1;
    }
    if (name == "patience") plugin->options.patience = absl::Seconds(number);
    if (name == "spin") plugin->options.channel.spin = absl::Microseconds(number);
    if (name == "inline") plugin->options.inline_most = static_cast<uint64_t>(number);
  } else {
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
  }
  return 0;
}

// Not before: nbdkit goes to the background by fork(), which leaves threads behind.
int AfterFork() {
  auto client = Client::Open(plugin->server, plugin->options);
  if (!client.ok()) return Result(client.status());
  plugin->client = *std::move(client);
  return 0;
}

int ListExports(int, int, nbdkit_exports* exports) {
  const auto volumes = plugin->client->List();
  if (!volumes.ok()) return Result(volumes.status());
  for (const auto& info : *volumes) {
    if (!info.unusable().empty()) continue;
    if (nbdkit_add_export(exports, info.name().c_str(), nullptr) != 0) return -1;
  }
  return 0;
}

const char* DefaultExport(int, int) { return plugin->volume.c_str(); }

void* Open(int) {
  const std::string name = plugin->volume.empty() ? nbdkit_export_name() : plugin->volume;
  const std::lock_guard guard(plugin->lock);
  std::unique_ptr<Volume>& volume = plugin->volumes[name];
  if (volume == nullptr) {
    auto opened = plugin->client->OpenVolume(name);
    if (!opened.ok()) {
      (void)Result(opened.status());
      plugin->volumes.erase(name);
      return nullptr;
    }
    volume = *std::move(opened);
  }
  return volume.get();
}

int64_t GetSize(void* handle) { return static_cast<int64_t>(Of(handle).info().bytes()); }
int CanWrite(void* handle) { return Of(handle).info().writable() ? 1 : 0; }
int Yes(void*) { return 1; }

int BlockSize(void*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
  *minimum = *preferred = kBlock;
  *maximum = 32 << 20;
  return 0;
}

int Pread(void* handle, void* into, uint32_t count, uint64_t offset, uint32_t) {
  if (!WholeBlocks(count, offset)) return -1;
  return Result(Of(handle).Read(offset, {static_cast<std::byte*>(into), count}));
}

int Pwrite(void* handle, const void* from, uint32_t count, uint64_t offset, uint32_t) {
  if (!WholeBlocks(count, offset)) return -1;
  return Result(Of(handle).Write(offset, {static_cast<const std::byte*>(from), count}));
}

int Flush(void* handle, uint32_t) { return Result(Of(handle).Flush()); }

// A hint: what is not a whole block stays.
int Trim(void* handle, uint32_t count, uint64_t offset, uint32_t) {
  const uint64_t first = (offset + kBlock - 1) / kBlock * kBlock;
  const uint64_t end = (offset + count) / kBlock * kBlock;
  if (first >= end) return 0;
  return Result(Of(handle).Trim(first, end - first));
}

int Zero(void* handle, uint32_t count, uint64_t offset, uint32_t) {
  if (!WholeBlocks(count, offset)) return -1;
  return Result(Of(handle).Trim(offset, count));
}

int ThreadModel() { return NBDKIT_THREAD_MODEL_PARALLEL; }

nbdkit_plugin MakePlugin() {
  nbdkit_plugin made = {};
  made.name = "verbena";
  made.longname = "volumes of a volume_server";
  made.version = "0.1";
  made.description = "NBD clients of this machine use volumes of another one, over RDMA or TCP";
  made.config_help =
      "server=HOST:PORT   the volume_server; localhost:7500\n"
      "volume=NAME        without: the NBD client's export name\n"
      "patience=SECONDS   how long a server that went away is waited for; 60\n"
      "spin=US            how long a reply is looked for before sleeping; 50\n"
      "inline=BYTES       requests up to this length travel in messages; 4096";
  made.magic_config_key = "volume";
  made.load = Load;
  made.unload = Unload;
  made.cleanup = Cleanup;
  made.config = Config;
  made.after_fork = AfterFork;
  made.list_exports = ListExports;
  made.default_export = DefaultExport;
  made.open = Open;
  made.get_size = GetSize;
  made.can_write = CanWrite;
  made.can_flush = Yes;
  made.can_trim = Yes;
  made.can_zero = Yes;
  made.can_multi_conn = Yes;
  made.block_size = BlockSize;
  made.pread = Pread;
  made.pwrite = Pwrite;
  made.flush = Flush;
  made.trim = Trim;
  made.zero = Zero;
  made.thread_model = ThreadModel;
  return made;
}

nbdkit_plugin registered = MakePlugin();

}  // namespace

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
NBDKIT_REGISTER_PLUGIN(registered)
