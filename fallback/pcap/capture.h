// SPDX-License-Identifier: Apache-2.0
// Everything that a process sends and receives over TCP, in one file that Wireshark reads: what
// VERBENA_PCAP asks for. See docs/decisions/0017-capture.md.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "fallback/io/world.h"
#include "fallback/pcap/packet_file.h"
#include "fallback/pcap/tcp_stream.h"

namespace verbena::pcap {

class Capture {
 public:
  // The one of this process; null: VERBENA_PCAP is not set, or the file could not be made, which is
  // logged. Lives as long as the process.
  static Capture* OfProcess();

  // `epoch`: what the clock of its worlds shows, plus this, is nanoseconds since 1970.
  Capture(std::unique_ptr<PacketFile> file, io::Nanos epoch)
      : file_(std::move(file)), epoch_(epoch) {}

  // Held by whoever calls anything below, or a TcpStream's function. Also over a send and what is
  // written of it: nobody can answer before it stands in the file.
  std::mutex& mutex() { return mutex_; }

  std::unique_ptr<TcpStream> Begin(int64_t at, const io::Address& local, const io::Address& peer,
                                   bool called);
  void Forget(const io::Address& local, const io::Address& peer);
  int64_t At(io::Nanos now) const { return epoch_ + now; }

 private:
  std::mutex mutex_;
  const std::unique_ptr<PacketFile> file_;
  const io::Nanos epoch_;
  absl::flat_hash_map<std::string, TcpStream*> open_;  // by both addresses
  uint32_t connections_ = 0;
};

// What VERBENA_PCAP=`pattern` names, made or emptied, for this process alone; or why it cannot be.
absl::StatusOr<std::unique_ptr<PacketFile>> OpenFile(absl::string_view pattern);

// `world`, with all that its sockets carry written down. The capture outlives it.
std::unique_ptr<io::World> Captured(std::unique_ptr<io::World> world, Capture* capture);

}  // namespace verbena::pcap
