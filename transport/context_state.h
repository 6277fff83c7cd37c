// SPDX-License-Identifier: Apache-2.0
// What stands behind a Context, shared by context.cc and connection.cc; not public.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "transport/device.h"
#include "transport/events.h"
#include "transport/out_of_band.h"
#include "transport/provider.h"

namespace verbena {

struct ContextState {
  explicit ContextState(std::unique_ptr<provider::Context> from)
      : events(from.get()), provider(std::move(from)) {}

  // The API's face of a provider's device; null for one that the provider did not list.
  Device* Find(const provider::Device* impl) const {
    for (const auto& device : devices) {
      if (device->impl() == impl) return device.get();
    }
    return nullptr;
  }

  // In this order, since a provider may push events until its destructor returns.
  const Nonce nonce = NewNonce();  // of Context::address()
  EventQueue events;
  std::unique_ptr<provider::Context> provider;
  std::vector<std::unique_ptr<Device>> devices;  // fixed when the context opens
};

}  // namespace verbena
