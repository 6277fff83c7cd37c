// SPDX-License-Identifier: Apache-2.0
// The volumes of a server, for programs. Any thread, any number of calls at once, one connection
// for all. A server that goes away is waited for: everything here may run twice, and is tried again
// until it is done or ClientOptions::patience is over.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "examples/volume/block.h"
#include "examples/volume/volume.verbena.h"
#include "rpc/channel.h"
#include "rpc/task.h"

namespace verbena::volume {

struct ClientOptions {
  rpc::ChannelOptions channel = {};
  absl::Duration patience = absl::Seconds(60);
  // So many bytes travel in the message, which costs four copies and saves a registration and a
  // round trip; more do not fit what a receive takes.
  uint64_t inline_most = 4096;
};

class Volume;

class Client {
 public:
  // "host:port". Connects at the first call.
  static absl::StatusOr<std::unique_ptr<Client>> Open(const std::string& address,
                                                      const ClientOptions& options = {});

  absl::StatusOr<std::vector<Info>> List();
  absl::StatusOr<Info> Create(const std::string& name, uint64_t bytes);
  absl::Status Remove(const std::string& name);
  absl::StatusOr<Info> Resize(const std::string& name, uint64_t bytes);
  // NotFound; FailedPrecondition with the reason why it cannot be used. Goes before the client.
  absl::StatusOr<std::unique_ptr<Volume>> OpenVolume(const std::string& name);

  rpc::ChannelCounters counters() const { return channel_->counters(); }

 private:
  friend class Volume;
  Client(std::unique_ptr<rpc::Channel> channel, const ClientOptions& options)
      : options_(options), channel_(std::move(channel)), calls_(*channel_) {}
  absl::StatusOr<Info> Find(const std::string& name);
  template <typename Response>
  absl::StatusOr<Response> Call(const rpc::Method& method,
                                const google::protobuf::MessageLite& request,
                                rpc::ClientContext& context);

  const ClientOptions options_;
  std::unique_ptr<rpc::Channel> channel_;
  Volumes::Client calls_;
};

// Offsets and lengths are multiples of 4096. What was written is checked by the server before it
// says so, what was read is checked here: DataLoss if a block is not what was written.
class Volume {
 public:
  const Info& info() const { return info_; }

  absl::Status Read(uint64_t offset, std::span<std::byte> into);
  absl::Status Write(uint64_t offset, std::span<const std::byte> from);
  absl::Status Trim(uint64_t offset, uint64_t bytes);  // zeros from then on
  // What was written before survives the machine. DataLoss, once: it went down since the last
  // flush.
  absl::Status Flush();

  // co_await these; on the thread that moves the connection, so they must not block afterwards.
  // Memory stays until the end.
  rpc::Task<absl::Status> CoRead(uint64_t offset, std::span<std::byte> into);
  rpc::Task<absl::Status> CoWrite(uint64_t offset, std::span<const std::byte> from);
  rpc::Task<absl::Status> CoTrim(uint64_t offset, uint64_t bytes);
  rpc::Task<absl::Status> CoFlush();

 private:
  friend class Client;
  struct ReadCall;
  struct WriteCall;
  struct TrimCall;
  struct FlushCall;
  struct Attempts;
  // Since the last flush: the machine that it was written to, how often.
  struct Unflushed {
    uint64_t boot = 0;
    uint64_t writes = 0;
    bool lost = false;  // it was another one in between
  };
  Volume(Client& client, Info info);

  template <typename Call>
  absl::Status Run(Call call);
  template <typename Call>
  rpc::Task<absl::Status> CoRun(Call call);
  absl::Status StillThere(const absl::StatusOr<Info>& found) const;
  void NoteWritten(const Changed& changed);

  Client& client_;
  const Info info_;
  const uint64_t writer_;
  std::atomic<uint64_t> try_number_ = 0;

  std::mutex lock_;
  Unflushed unflushed_;
};

}  // namespace verbena::volume
