// SPDX-License-Identifier: Apache-2.0
// The service of examples/ml/tensor_store.proto, in memory. Handlers block: give the server
// threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "examples/ml/pages.h"
#include "examples/ml/tensor_store.verbena.h"

namespace ml {

// Any thread. Whoever reads or adds to a tensor sees it whole, of one version.
class TensorServer final : public TensorStore::Service {
 public:
  explicit TensorServer(uint64_t max_bytes) : max_bytes_(max_bytes) {}

  absl::StatusOr<TensorInfo> Put(verbena::rpc::ServerContext& call,
                                 const PutTensor& request) override;
  absl::StatusOr<TensorInfo> Accumulate(verbena::rpc::ServerContext& call,
                                        const PutTensor& request) override;
  absl::StatusOr<TensorInfo> Get(verbena::rpc::ServerContext& call,
                                 const GetTensor& request) override;
  absl::StatusOr<TensorInfo> Describe(verbena::rpc::ServerContext& call,
                                      const TensorName& request) override;
  absl::StatusOr<TensorList> List(verbena::rpc::ServerContext& call,
                                  const TensorPrefix& request) override;
  absl::StatusOr<Gone> Delete(verbena::rpc::ServerContext& call,
                              const TensorName& request) override;

 private:
  // One version of a tensor, never changed. When it was replaced it goes with its last reader.
  struct Elements {
    TensorInfo info;
    Pages memory;
    size_t bytes = 0;
    int readers = 0;
  };
  // Keeps a version while it is read.
  class Reading;
  using Lock = std::unique_lock<std::mutex>;

  absl::StatusOr<std::unique_ptr<Elements>> Pull(verbena::rpc::ServerContext& call,
                                                 const PutTensor& request);
  // These with the lock.
  Elements* Find(const std::string& name) const;
  absl::Status CheckVersion(const PutTensor& request) const;
  void AwaitTurn(Lock& lock, const std::string& name);
  TensorInfo Replace(const std::string& name, std::unique_ptr<Elements> by);
  void Retire(std::unique_ptr<Elements> old);
  absl::StatusOr<Reading> Read(const std::string& name);

  const uint64_t max_bytes_;
  mutable std::mutex lock_;
  std::condition_variable changed_;
  std::map<std::string, std::unique_ptr<Elements>> tensors_;
  std::set<std::string> changing_;                                // something is added to these
  std::map<const Elements*, std::unique_ptr<Elements>> retired_;  // still being read
  uint64_t bytes_ = 0;                                            // of all, also on their way
  uint64_t last_version_ = 0;
};

}  // namespace ml
