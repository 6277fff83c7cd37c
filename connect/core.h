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
  const std::vector<std::string>& remedies() const {
    return remedies_;
  }                                                   // "verbs: ... Install ..."
  bool Serves(const provider::Device* device) const;  // it is one of usable()
  uint8_t links() const;
  std::vector<Ip> addresses() const;

  // The devices that have a link of the caller's, nearest first: the one whose address `local` is,
  // at which the caller called; then those that share most bits with an address of the caller's.
  std::vector<Site> Nearest(const Ask& ask, const Ip& local) const;

  // All that are usable, each for the reason `why`.
  std::vector<Candidate> Everyone(const std::string& why) const;
  // Those that are not even tried, each with its reason, and then the device of the base.
  std::vector<Candidate> WithoutRdma(Rdma mode, const char* why_not_tried) const;
  // `losers`, those that were not tried, and then the device of the base.
  std::vector<Candidate> OnBase(std::vector<Candidate> losers) const;
  // `losers` as the peer told them, and then the device of the base.
  std::vector<Candidate> AsTold(std::vector<Candidate> losers) const;
  // `device`, for the reason `why`; the others, of which some were `tried`; the device of the base.
  std::vector<Candidate> OnDevice(const provider::Device& device, const std::string& why, Rdma mode,
                                  const std::vector<Candidate>& tried = {}) const;

  // On the device that was chosen, and not on the others.
  void CountConnection(const std::vector<Candidate>& candidates);
  void CountRefusal(Reason reason);
  ContextCounters counters() const;

 private:
  void Miss(const std::string& device, const std::string& reason);

  provider::Context* const base_;
  const Settings settings_;
  std::vector<Usable> usable_;
  std::vector<Candidate> absent_;      // not usable, or not to be taken by itself
  std::vector<std::string> remedies_;  // of the same
  mutable std::mutex mutex_;
  ContextCounters counters_;
};

// Plain, and without the remedy, which is for who has no other way.
Candidate Loser(const std::string& device, const std::string& reason);

}  // namespace verbena::connect
