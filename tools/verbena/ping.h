// SPDX-License-Identifier: Apache-2.0
// `verbena ping`: what its two sides share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tools/verbena/link.h"
#include "tools/verbena/ping_wire.h"
#include "tools/verbena/side.h"
#include "transport/memory.h"

namespace verbena::tool {

struct PingOptions : SideOptions {
  PingOptions() : SideOptions(kPingPort) {}

  std::string source;  // -I
  int64_t count = 0;   // 0: until stopped
  int64_t size = kDefaultPing;
  bool verbose = false;
  bool validate = false;
  bool persistent = false;
  bool debug = false;
  bool json = false;
  std::string fault;

  void Debug(absl::string_view what) const;  // with -d, on stderr
};

// Both return the exit status.
int RunPingClient(const PingOptions& options);
int RunPingServer(const PingOptions& options);

// A link that carries Adverts: one message each way at a time, never more than one receive posted,
// as rping's queue pairs have room for.
class AdvertLink {
 public:
  // The receive is posted, so that the link may be connected.
  static absl::StatusOr<AdvertLink> Make(Device& device, const PingOptions& options);

  Link& link() { return *link_; }
  absl::Status Send(const RemoteBuffer& advert);
  absl::Status SendGoAhead() { return Send({}); }
  // Link::Await's errors; Internal if the message is not an Advert's size.
  absl::StatusOr<RemoteBuffer> Receive(absl::Duration timeout);

 private:
  absl::Status PostReceive();

  std::unique_ptr<Link> link_;
  Buffer* messages_ = nullptr;  // one received, then one sent
  const PingOptions* options_ = nullptr;
};

}  // namespace verbena::tool
