// SPDX-License-Identifier: Apache-2.0
// `verbena perf`: what its two sides share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/verbena/link.h"
#include "tools/verbena/perf_wire.h"
#include "tools/verbena/side.h"
#include "tools/verbena/spinner.h"
#include "tools/verbena/stats.h"
#include "transport/memory.h"

namespace verbena::tool {

struct PerfOptions : SideOptions {
  PerfOptions() : SideOptions(kPerfPort) {}

  std::string op = "write";
  std::string mode = "bw";
  int64_t size = 0;        // 0: 8 for lat, 64 KiB for bw
  int64_t iterations = 0;  // 0: 10 000 for lat, about 1 GiB for bw
  int64_t window = 16;
  int64_t cpu = -1;
  bool json = false;
};

// Both return the exit status.
int RunPerfClient(const PerfOptions& options);
int RunPerfServer(const PerfOptions& options);

// One end of a measurement: link, memory in PerfLayout, and what was agreed.
class PerfEnd {
 public:
  // Memory registered and receives posted: ready to be connected.
  static absl::StatusOr<PerfEnd> Make(Device& device, const PerfRequest& request,
                                      absl::Duration patience);

  Link& link() { return *link_; }
  RemoteBuffer lent() const { return data_->region().remote(); }
  void set_peer(const RemoteBuffer& peer);  // before anything is posted
  const PerfRequest& request() const { return request_; }
  absl::Duration patience() const { return patience_; }

  // Posts the agreed operation `count` times (at most kMostPosts), one doorbell.
  static constexpr uint32_t kMostPosts = 32;
  absl::Status Post(uint32_t count);
  absl::Status PostReceive();

  // The byte of the landing area that is written last, for write latency, and what goes into the
  // peer's: `stamp` in the last byte of the source.
  uint8_t Landed() const;
  void Stamp(uint8_t stamp);

  // A control message of kPerfResultBytes out of the source area, or the one that has landed.
  absl::Status SendControl(absl::string_view bytes);
  std::string LandedControl() const;

 private:
  std::unique_ptr<Link> link_;
  Buffer* data_ = nullptr;
  std::vector<SendWr> batch_;  // the operation, made once
  PerfRequest request_;
  PerfLayout layout_{0};
  absl::Duration patience_;
};

// The client's measured loops, `count` operations each; called for the warm-up first.
absl::Status LatencyRounds(PerfEnd& end, Spinner& spinner, uint32_t first, uint32_t count,
                           Samples* samples);
absl::Status BandwidthRounds(PerfEnd& end, Spinner& spinner, uint32_t count);

// The server's part, until the client has said that it is done.
absl::Status AnswerRounds(PerfEnd& end, Spinner& spinner);

}  // namespace verbena::tool
