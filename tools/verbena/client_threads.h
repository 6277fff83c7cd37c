// SPDX-License-Identifier: Apache-2.0
// A server's clients: each in a thread of its own, no more than so many at once, and no client that
// ends the server.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <list>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "transport/connection.h"

namespace verbena::tool {

class ClientThreads {
 public:
  using Serve = std::function<void(ConnectionRequest)>;

  // `serve` is called in many threads at once.
  ClientThreads(size_t limit, Serve serve);
  ~ClientThreads();  // waits for the clients to leave
  ClientThreads(const ClientThreads&) = delete;
  ClientThreads& operator=(const ClientThreads&) = delete;

  // Above the limit the request is rejected, and told so. One thread calls.
  void Start(ConnectionRequest request);

 private:
  struct Client {
    std::thread thread;
    std::atomic<bool> left = false;
  };
  void JoinThoseThatLeft();

  const size_t limit_;
  const Serve serve_;
  std::list<Client> clients_;
};

// Accepts for ever. Returns only with the error that ended it: the listener's, five times running.
absl::Status ServeForEver(absl::string_view command, Listener& listener, ClientThreads& clients);

}  // namespace verbena::tool
