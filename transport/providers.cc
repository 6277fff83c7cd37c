// SPDX-License-Identifier: Apache-2.0
#include "transport/providers.h"

#include <span>

#include "fallback/provider.h"
#include "verbs/provider.h"

namespace verbena {

std::span<const ProviderEntry> AllProviders() {
  static constexpr ProviderEntry kProviders[] = {
      {"tcp",
       [](const std::string& argument, std::vector<Candidate>*) {
         return fallback::Open(argument);
       },
       &fallback::ListDevices},
      {"verbs", &verbs::Open, &verbs::ListDevices},
  };
  return kProviders;
}

}  // namespace verbena
