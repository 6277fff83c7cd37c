// SPDX-License-Identifier: Apache-2.0
// What the parts of a composed context share. Fixed when it opens, but for the counters.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "connect/compose.h"
#include "connect/messages.h"
#include "connect/reason.h"
#include "transport/counters.h"
#include "transport/provider.h"

namespace verbena::connect {

// An RDMA device that selection may choose.
struct Usable {
  provider::Context* provider = nullptr;
  provider::Device* device = nullptr;
  std::vector<Ip> addresses = {};
};

// Where the listener should listen.
struct Site {
  const Usable* usable = nullptr;
  Ip address = {};
};

inline constexpr const char* kProven = "proven to reach the peer";

class Core {
 public:
  Core(provider::Context* base, const std::vector<provider::Context*>& rdma,
       const Settings& settings);

  provider::Context& base() const { return *base_; }
  const std::string& base_name() const { return base_->devices().front()->info().name; }
  // A context that requires RDMA has no TCP, whatever a call says.
  bool required() const { return settings_.rdma == Rdma::kRequired; }
  Rdma mode(const std::optional<Rdma>& option) const {
    return required() ? Rdma::kRequired : option.value_or(settings_.rdma);
  }
  const std::vector<Usable>& usable() const { return usable_; }
  const std::vector<Candidate>& absent() const { return absent_; }
  bool Serves(const provider::Device* device) const;  // it is one of usable()
  uint8_t links() const;
  std::vector<Ip> addresses() const;

  // The device that is nearest to a caller: the one whose address `local` is, at which the caller
  // called; else the one that shares most bits with an address of the caller's. Null: no link of
  // the caller's.
  Site Nearest(const Ask& ask, const Ip& local) const;

  // Those that are not even tried, each with its reason, and then the device of the base.
  std::vector<Candidate> WithoutRdma(Rdma mode, const char* why_not_tried) const;
  // `losers`, those that were not tried, and then the device of the base.
  std::vector<Candidate> OnBase(std::vector<Candidate> losers) const;
  // `losers` as the peer told them, and then the device of the base.
  std::vector<Candidate> AsTold(std::vector<Candidate> losers) const;
  // `device`, for the reason `why`, and then the device of the base.
  std::vector<Candidate> OnDevice(const provider::Device& device, const char* why, Rdma mode) const;

  void CountConnection(const std::string& device);
  void CountRefusal(Reason reason);
  ContextCounters counters() const;

 private:
  provider::Context* const base_;
  const Settings settings_;
  std::vector<Usable> usable_;
  std::vector<Candidate> absent_;  // not usable, or not to be taken by itself
  mutable std::mutex mutex_;
  ContextCounters counters_;
};

// Cut to what a note holds, and plain, so that both ends have the same.
Candidate Loser(const std::string& device, const std::string& reason);

}  // namespace verbena::connect
