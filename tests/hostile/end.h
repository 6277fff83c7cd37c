// SPDX-License-Identifier: Apache-2.0
// The end of Verbena that strangers speak to, on kernel TCP and in this process, so that its leaks
// are the test's; and the bytes that they begin with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "fallback/engine/test_fpdu.h"
#include "transport/context.h"

namespace verbena::hostile {

// A listener that accepts, with memory that is lent and a receive of 64 bytes.
class Site {
 public:
  explicit Site(const ListenOptions& options = {});

  std::string port() const { return std::to_string(listener_.port()); }
  Context& context() { return context_; }
  ListenerCounters counters() const { return listener_.counters(); }

  // A queue pair for one peer. Reads and atomics of the peer: one at a time.
  struct Served {
    QueuePair qp;
    absl::Status accepted;
  };
  Served Serve();
  QueuePair NewQueuePair();

  // Whether the next thing that completes on `qp` does so well.
  bool Received(const QueuePair& qp);

  uint32_t key() const { return region_.remote_key(); }
  uint64_t at() const { return region_.address(); }
  // Whether the next caller gets through, and its message too.
  bool ServesTheNext();

 private:
  Context context_;
  ProtectionDomain pd_;
  CompletionQueue cq_;
  std::string memory_ = std::string(4096, '\0');
  MemoryRegion region_;
  Listener listener_;
};

// An MPA frame of any content. `length` below 0: that of the data.
struct FrameParts {
  std::string key = "MPA ID Req Frame";
  uint8_t flags = 0;
  uint8_t revision = 1;
  std::string data = "";
  int length = -1;
};
std::string Frame(const FrameParts& parts);

// A Request as Verbena sends it: revision 2, peer to peer, with a record.
std::string OwnRequest();
// The same of an iWARP device: without record.
std::string ForeignRequest(bool crc = false);
// A record, at the end of private data.
std::string Record(uint8_t role, uint32_t features, uint32_t required);

std::string Text(const engine::Bytes& bytes);

// Descriptors of this process.
int CountDescriptors();

}  // namespace verbena::hostile
