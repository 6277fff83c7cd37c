// SPDX-License-Identifier: Apache-2.0
// Moves a file to and from a volume_server, eight calls of a mebibyte at once, as coroutines.
//   volume_client HOST:7500 put FILE NAME | get NAME FILE | list
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "examples/check.h"
#include "examples/volume.verbena.h"

using namespace verbena;  // NOLINT: an example

namespace {

constexpr size_t kBlock = 1 << 20;
constexpr int kAtOnce = 8;

struct Copy {
  rpc::Channel& channel;
  std::string name;
  std::vector<std::byte> bytes;
  bool writes;
  std::atomic<size_t> next = 0;  // the first byte that nobody has taken on
};

// One of several that share a copy: takes on block after block.
rpc::Task<absl::Status> MoveBlocks(Copy& copy) {
  const examples::Volume::Client client(copy.channel);
  for (size_t at; (at = copy.next.fetch_add(kBlock)) < copy.bytes.size();) {
    const auto block = std::span(copy.bytes).subspan(at, std::min(kBlock, copy.bytes.size() - at));
    rpc::ClientContext context(absl::Seconds(10));
    auto lent = copy.channel.Lend(context, block,
                                  copy.writes ? rpc::BulkAccess::kRead : rpc::BulkAccess::kWrite);
    if (!lent.ok()) co_return lent.status();
    examples::Range range;
    range.set_name(copy.name);
    range.set_offset(at);
    range.set_bytes(block.size());
    *range.mutable_memory() = *lent;
    absl::StatusOr<examples::Moved> moved;
    if (copy.writes) {
      moved = co_await client.CoWrite(range, context);
    } else {
      moved = co_await client.CoRead(range, context);
    }
    if (!moved.ok()) co_return moved.status();
    if (moved->bytes() != block.size()) co_return absl::OutOfRangeError("the volume is shorter");
  }
  co_return absl::OkStatus();
}

// All of them on the channel's thread; this one only waits.
absl::Status MoveAll(Copy& copy) {
  std::vector<rpc::Task<absl::Status>> movers;
  for (int i = 0; i < kAtOnce; ++i) movers.push_back(MoveBlocks(copy));
  for (const absl::Status& end : rpc::WaitForAll(std::move(movers))) {
    if (!end.ok()) return end;
  }
  return absl::OkStatus();
}

void Put(rpc::Channel& channel, const std::string& file, const std::string& name) {
  std::ifstream in(file, std::ios::binary);
  if (!in) Check(absl::NotFoundError("cannot read " + file));
  Copy copy{.channel = channel, .name = name, .bytes = {}, .writes = true};
  copy.bytes.resize(std::filesystem::file_size(file));
  in.read(reinterpret_cast<char*>(copy.bytes.data()),
          static_cast<std::streamsize>(copy.bytes.size()));
  Check(MoveAll(copy));
  examples::VolumeName volume;
  volume.set_name(name);
  Check(examples::Volume::Client(channel).Flush(volume));
  printf("put %zu bytes, flushed\n", copy.bytes.size());
}

void Get(rpc::Channel& channel, const std::string& name, const std::string& file) {
  const auto list = Check(examples::Volume::Client(channel).List(examples::Nothing()));
  const auto found = std::find_if(list.volumes().begin(), list.volumes().end(),
                                  [&](const auto& volume) { return volume.name() == name; });
  if (found == list.volumes().end()) Check(absl::NotFoundError("no volume " + name));
  Copy copy{.channel = channel, .name = name, .bytes = {}, .writes = false};
  copy.bytes.resize(found->bytes());
  Check(MoveAll(copy));
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(copy.bytes.data()),
            static_cast<std::streamsize>(copy.bytes.size()));
  if (!out.flush()) Check(absl::UnavailableError("cannot write " + file));
  printf("got %zu bytes\n", copy.bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[2] : "";
  if (!(what == "list" && argc == 3) && !((what == "put" || what == "get") && argc == 5)) {
    fprintf(stderr, "usage: volume_client HOST:7500 put FILE NAME | get NAME FILE | list\n");
    return 2;
  }
  auto channel = Check(rpc::Channel::Open(argv[1]));
  if (what == "put") Put(*channel, argv[3], argv[4]);
  if (what == "get") Get(*channel, argv[3], argv[4]);
  if (what == "list") {
    const auto list = Check(examples::Volume::Client(*channel).List(examples::Nothing()));
    for (const auto& volume : list.volumes()) {
      printf("%12llu %s\n", static_cast<unsigned long long>(volume.bytes()), volume.name().c_str());
    }
  }
}
