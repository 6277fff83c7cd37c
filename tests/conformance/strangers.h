// SPDX-License-Identifier: Apache-2.0
// Two ends that have not met: what cases about connecting start from.
#pragma once

#include "tests/conformance/pair.h"

namespace verbena::conformance {

// Two ends that are not connected, a listener and a path to it.
struct Strangers {
  explicit Strangers(ConformanceBase& test)
      : server(*test.server().devices()[0], {}),
        client(*test.client().devices()[0], {}),
        listener(Check(test.server().Listen(test.AnyPort()))),
        path(Check(test.client().Resolve(listener.address()))) {}

  ConnectionRequest Ask(const ConnectParameters& parameters = {}, Line line = Line::Here()) {
    Check(path.StartConnect(client.qp, parameters), line);
    return Check(listener.Next(kLong), line);
  }

  End server;
  End client;
  Listener listener;
  Path path;
};

}  // namespace verbena::conformance
