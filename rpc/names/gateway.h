// SPDX-License-Identifier: Apache-2.0
// Messages as JSON, by HTTP POST, to one of several endpoints of an etcd cluster. The only user of
// libcurl. One thread at a time, but for Stop().
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"

namespace verbena::rpc {

// "a:2379,b:2379". InvalidArgument: one of them has no port, or there is none.
absl::StatusOr<std::vector<std::string>> ParseEndpoints(absl::string_view list);

// "etcd:a:2379,b:2379/storage/volumes": the servers of a service, one a key with its address.
struct EtcdName {
  std::vector<std::string> endpoints;
  std::string prefix;  // of the keys: "storage/volumes/"
};
absl::StatusOr<EtcdName> ParseEtcdName(absl::string_view name);

class Gateway {
 public:
  explicit Gateway(std::vector<std::string> endpoints);
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  // Asks the endpoint that answered last, and the others in turn if that does not. Unavailable:
  // none did. What etcd itself refuses has the code that it gives. Cancelled: Stop().
  absl::Status Call(const char* path, const google::protobuf::Message& request,
                    google::protobuf::Message* response, absl::Duration timeout);
  // Of an answer that does not end, each line until `line` says false (then OK) or `deadline`. The
  // next one begins at another endpoint if this one failed.
  absl::Status Stream(const char* path, const google::protobuf::Message& request,
                      absl::FunctionRef<bool(absl::string_view)> line, absl::Time deadline);
  void Pause(absl::Duration pause);  // less if it is stopped
  void Stop();                       // any thread; for good
  bool stopped() const { return stopped_.load(); }

 private:
  struct Transfer;
  absl::Status Run(Transfer& transfer, absl::Time deadline);

  const std::vector<std::string> endpoints_;
  size_t current_ = 0;
  void* const multi_;
  std::atomic<bool> stopped_ = false;
};

}  // namespace verbena::rpc
