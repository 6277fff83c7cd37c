// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/client_threads.h"

#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/text.h"

namespace verbena::tool {

ClientThreads::ClientThreads(size_t limit, Serve serve) : limit_(limit), serve_(std::move(serve)) {}

ClientThreads::~ClientThreads() {
  for (Client& client : clients_) client.thread.join();
}

void ClientThreads::Start(ConnectionRequest request) {
  JoinThoseThatLeft();
  if (clients_.size() >= limit_) {
    (void)request.Reject(absl::StrCat("busy: ", Count(static_cast<int64_t>(limit_), "client"),
                                      " connected, no room for more; try again later"));
    return;
  }
  Client& client = clients_.emplace_back();
  try {
    client.thread = std::thread([this, &client, request = std::move(request)]() mutable {
      serve_(std::move(request));
      client.left = true;
    });
  } catch (const std::system_error&) {  // no thread to be had; the request rejects as it goes
    clients_.pop_back();
  }
}

void ClientThreads::JoinThoseThatLeft() {
  for (auto client = clients_.begin(); client != clients_.end();) {
    if (!client->left) {
      ++client;
      continue;
    }
    client->thread.join();
    client = clients_.erase(client);
  }
}

absl::Status ServeForEver(absl::string_view command, Listener& listener, ClientThreads& clients) {
  constexpr int kPatience = 5;
  for (int failures = 0;;) {
    absl::StatusOr<ConnectionRequest> request = listener.Next();
    if (!request.ok()) {
      if (++failures == kPatience) return request.status();
      Complain(command, request.status().message());
      continue;
    }
    failures = 0;
    clients.Start(*std::move(request));
  }
}

}  // namespace verbena::tool
