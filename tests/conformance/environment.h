// SPDX-License-Identifier: Apache-2.0
// What every case runs on: one ground per provider that production knows, and TCP over the
// simulated network from several seeds. A new entry of AllProviders() is in the suite at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "transport/context.h"
#include "transport/providers.h"

namespace verbena::conformance {

// Hosts that reach each other. One thread drives both ends: it never sleeps, and waits only in the
// library's own blocking calls, so that a simulated world's clock moves.
class Ground {
 public:
  virtual ~Ground() = default;
  virtual absl::StatusOr<Context> NewHost() = 0;
  virtual std::string address(int host) const = 0;     // without a port; hosts count from 0
  virtual std::string address6() const { return ""; }  // IPv6, of every host; empty: there is none
  virtual bool simulated() const = 0;
  virtual uint64_t seed() const { return 1; }  // for what a case itself chooses at random
  // Breaks the connection of `qp`, the only one that there is, with no goodbye, as when a router
  // or the peer's kernel fails; false: this ground cannot.
  virtual bool Cut(const QueuePair& qp) = 0;
  // From now on nothing passes between the first two hosts, and nobody says so; false: this ground
  // cannot.
  virtual bool Silence(bool on) = 0;
  // Of the packets of `qp`, as the kernel says; -1: this ground cannot tell.
  virtual int TrafficClass(const QueuePair&) { return -1; }
  virtual std::string Report() const { return ""; }  // what was injected
};

struct ProviderCase {
  std::string name;  // "tcp", "sim_1"
  std::function<std::unique_ptr<Ground>(const std::string& test)> make;
};
void PrintTo(const ProviderCase& provider, std::ostream* out);
std::vector<ProviderCase> Providers();
// Why no case runs on this provider here; empty: it has a device that can be used.
std::string WhyUnusable(const ProviderEntry& provider);
std::vector<ProviderCase> KernelProviders();  // without the simulated ones: for several threads

// For a fixture `NAME` of type Conformance: its cases run on every provider.
#define CONFORMANCE_RUN(NAME)                                                                 \
  INSTANTIATE_TEST_SUITE_P(All, NAME, testing::ValuesIn(::verbena::conformance::Providers()), \
                           [](const auto& info) { return info.param.name; })

// The same for a test suite that needs nothing more.
#define CONFORMANCE_SUITE(NAME)                               \
  class NAME : public ::verbena::conformance::Conformance {}; \
  CONFORMANCE_RUN(NAME)

// The same for a table: each case runs for every row on every provider. ROW has `std::string name`.
#define CONFORMANCE_TABLE(NAME, ROW, ROWS)                                             \
  class NAME : public ::verbena::conformance::ConformanceTable<ROW> {};                \
  INSTANTIATE_TEST_SUITE_P(                                                            \
      All, NAME, testing::ValuesIn(::verbena::conformance::OnEachProvider<ROW>(ROWS)), \
      [](const auto& info) { return info.param.provider.name + "_" + info.param.row.name; })

template <typename Row>
struct ProviderAndRow {
  ProviderCase provider;
  Row row;
};

template <typename Row>
void PrintTo(const ProviderAndRow<Row>& both, std::ostream* out) {
  *out << both.provider.name << ", " << both.row.name;
}

template <typename Row, typename Rows>
std::vector<ProviderAndRow<Row>> OnEachProvider(const Rows& rows) {
  std::vector<ProviderAndRow<Row>> all;
  for (const ProviderCase& provider : Providers()) {
    for (const Row& row : rows) all.push_back({provider, row});
  }
  return all;
}

// How long anything that should happen may take, and how long we look at something that should not.
inline constexpr absl::Duration kLong = absl::Seconds(10);
inline constexpr absl::Duration kAWhile = absl::Milliseconds(30);

// Two contexts that reach each other, and how to wait.
class ConformanceBase : public testing::Test {
 public:
  Context& server() { return *server_; }
  Context& client() { return *client_; }
  Ground& ground() { return *ground_; }
  bool simulated() const { return ground_->simulated(); }
  std::string AnyPort() const { return ground_->address(0) + ":0"; }  // of the server

  // Lets the world go on for `time`, whatever happens.
  void RunFor(absl::Duration time);
  // Lets it go on until `done`; false if that takes longer than `limit`.
  bool RunUntil(absl::FunctionRef<bool()> done, absl::Duration limit = kLong);
  // Calls `done`, which polls a completion queue, again and again, as a busy program does: unlike
  // RunUntil() it never blocks. False if that takes longer than kLong.
  bool Spin(absl::FunctionRef<bool()> done);
  // Whether `fd` becomes readable.
  bool WaitReadable(int fd, absl::Duration limit = kLong);

  // The status of a request that the peer refused for the reason `why`.
  WcStatus Refusal(WcStatus why) {
    const bool told = client().devices()[0]->capabilities().refusal_reasons;
    return told ? why : WcStatus::kRemoteOperationError;
  }

  // The next `count` completions, in order; ends the case when they do not come.
  std::vector<WorkCompletion> WaitFor(CompletionQueue& cq, size_t count, Line line = Line::Here());
  WorkCompletion WaitOne(CompletionQueue& cq, Line line = Line::Here()) {
    return WaitFor(cq, 1, line).front();
  }
  // Whether `cq` stays empty for `time`.
  bool StaysEmpty(CompletionQueue& cq, absl::Duration time = kAWhile);

  // The next event of this type; others that come first are dropped and named if it never comes.
  Event WaitForEvent(Context& context, EventType type, Line line = Line::Here());
  // Whether no event of this type comes for `time`; drops the others.
  bool NoEvent(Context& context, EventType type, absl::Duration time = kAWhile);

 protected:
  void Open(const ProviderCase& provider);
  void TearDown() override;

 private:
  std::unique_ptr<Ground> ground_;
  std::optional<Context> server_;
  std::optional<Context> client_;
  CompletionChannel idle_;  // of the client; nothing ever arrives
  std::optional<testing::ScopedTrace> trace_;
};

class Conformance : public ConformanceBase, public testing::WithParamInterface<ProviderCase> {
 protected:
  void SetUp() override { Open(GetParam()); }
};

template <typename Row>
class ConformanceTable : public ConformanceBase,
                         public testing::WithParamInterface<ProviderAndRow<Row>> {
 protected:
  void SetUp() override { this->Open(this->GetParam().provider); }
  const Row& row() const { return this->GetParam().row; }
};

}  // namespace verbena::conformance
