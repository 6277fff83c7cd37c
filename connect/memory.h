// SPDX-License-Identifier: Apache-2.0
// What was found out about peers, good or bad. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "transport/provider.h"

namespace verbena::connect {

struct Verdict {
  provider::Device* device = nullptr;  // proven to reach the peer; null: none
  uint8_t nth = 0;                     // of the listener's devices, to which it is proven
  std::vector<Candidate> losers = {};  // those that were tried; every one if none is proven
  bool peer_selects = false;           // it knows notes
  bool plain = false;                  // somebody listens who does not select; not remembered
};

class Memory {
 public:
  std::optional<Verdict> Recall(const std::string& address, absl::Duration now);
  void Remember(const std::string& address, const Verdict& verdict, absl::Duration now);
  void Forget(const std::string& address);
  void ForgetProofs();  // the good verdicts

 private:
  struct Entry {
    Verdict verdict;
    absl::Duration until;
  };
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace verbena::connect
