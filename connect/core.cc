// SPDX-License-Identifier: Apache-2.0
#include "connect/core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "connect/limits.h"

namespace verbena::connect {
namespace {

constexpr const char* kNoneInUse = "no RDMA device is in use";
constexpr const char* kNoneServes = "no RDMA device serves";
constexpr const char* kNotNeeded = "RDMA reaches the peer";
constexpr const char* kRequired = "RDMA is required";
constexpr const char* kOtherServes = "another device serves";
constexpr const char* kIsOff = "RDMA is off at this end";
constexpr const char* kNoAddress = "it has no IP address to connect to";
constexpr const char* kMoreLosers = "others";
constexpr int kExact = 1000;  // more than any number of common bits

}  // namespace

Core::Core(provider::Context* base, const std::vector<provider::Context*>& rdma,
           const Settings& settings)
    : base_(base), settings_(settings) {
  for (const Candidate& each : settings.absent) {
    Miss(each.device, each.reason);
  }
  for (provider::Context* context : rdma) {
    for (provider::Device* device : context->devices()) {
      const DeviceInfo& info = device->info();
      Usable usable{context, device, {}};
      for (const std::string& address : info.addresses) {
        if (const std::optional<Ip> ip = ParseIp(address)) usable.addresses.push_back(*ip);
      }
      if (!info.usable) {
        Miss(info.name, info.reason);
      } else if (info.link == Link::kNone || usable.addresses.empty()) {
        Miss(info.name, kNoAddress);
      } else {
        usable_.push_back(std::move(usable));
      }
    }
  }
}

void Core::Miss(const std::string& device, const std::string& reason) {
  absent_.push_back(Loser(device, reason));
  remedies_.push_back(absl::StrCat(absent_.back().device, ": ", PlainText(reason)));
}

bool Core::Serves(const provider::Device* device) const {
  return std::any_of(usable_.begin(), usable_.end(),
                     [device](const Usable& each) { return each.device == device; });
}

uint8_t Core::links() const {
  uint8_t links = 0;
  for (const Usable& each : usable_) links |= LinkBit(each.device->info().link);
  return links;
}

std::vector<Ip> Core::addresses() const {
  std::vector<Ip> all;
  for (const Usable& each : usable_) {
    for (const Ip& ip : each.addresses) {
      if (all.size() < kMaxAddresses) all.push_back(ip);
    }
  }
  return all;
}

std::vector<Site> Core::Nearest(const Ask& ask, const Ip& local) const {
  struct Ranked {
    Site site;
    int bits;
  };
  std::vector<Ranked> ranked;
  for (const Usable& each : usable_) {
    if ((LinkBit(each.device->info().link) & ask.links) == 0) continue;
    Ranked best{{&each, {}}, -2};
    for (const Ip& ip : each.addresses) {
      int bits = ip == local ? kExact : -1;
      for (const Ip& caller : ask.addresses) bits = std::max(bits, Nearness(ip, caller));
      if (bits > best.bits) best = {{&each, ip}, bits};
    }
    ranked.push_back(best);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Ranked& a, const Ranked& b) { return a.bits > b.bits; });
  std::vector<Site> sites;
  for (const Ranked& each : ranked) sites.push_back(each.site);
  return sites;
}

std::vector<Candidate> Core::Everyone(const std::string& why) const {
  std::vector<Candidate> losers;
  for (const Usable& each : usable_) losers.push_back(Loser(each.device->info().name, why));
  return losers;
}

std::vector<Candidate> Core::WithoutRdma(Rdma mode, const char* why_not_tried) const {
  return OnBase(Everyone(mode == Rdma::kOff ? kIsOff : why_not_tried));
}

std::vector<Candidate> Core::OnBase(std::vector<Candidate> losers) const {
  losers.insert(losers.end(), absent_.begin(), absent_.end());
  return AsTold(std::move(losers));
}

std::vector<Candidate> Core::AsTold(std::vector<Candidate> losers) const {
  losers.push_back({base_name(), true, losers.empty() ? kNoneInUse : kNoneServes});
  return losers;
}

std::vector<Candidate> Core::OnDevice(const provider::Device& device, const std::string& why,
                                      Rdma mode, const std::vector<Candidate>& tried) const {
  std::vector<Candidate> all = {{device.info().name, true, why}};
  for (const Candidate& each : Everyone(kOtherServes)) {
    if (each.device == device.info().name) continue;
    const auto known = std::find_if(tried.begin(), tried.end(), [&each](const Candidate& loser) {
      return loser.device == each.device;
    });
    all.push_back(known != tried.end() ? *known : each);
  }
  all.insert(all.end(), absent_.begin(), absent_.end());
  all.push_back({base_name(), false, mode == Rdma::kRequired ? kRequired : kNotNeeded});
  return all;
}

void Core::CountConnection(const std::vector<Candidate>& candidates) {
  const std::lock_guard lock(mutex_);
  for (const Candidate& each : candidates) {
    if (each.chosen) {
      ++counters_.connections[each.device];
      continue;
    }
    const std::string loser = absl::StrCat(each.device, ": ", each.reason);
    const bool known = counters_.not_taken.contains(loser);
    ++counters_.not_taken[known || counters_.not_taken.size() < kLosers ? loser : kMoreLosers];
  }
}

void Core::CountRefusal(Reason reason) {
  const std::lock_guard lock(mutex_);
  ++counters_.refusals[ReasonName(reason)];
}

ContextCounters Core::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

Candidate Loser(const std::string& device, const std::string& reason) {
  return {PlainText(device), false, PlainText(reason.substr(0, reason.find(". ")))};
}

}  // namespace verbena::connect
