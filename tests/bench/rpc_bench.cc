// SPDX-License-Identifier: Apache-2.0
// Calls by rpc/ on kernel TCP, through generated clients: what tests/bench/compare_rpc holds
// against others. Handlers run inline.
#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "rpc/channel.h"
#include "rpc/server.h"
#include "tests/bench/echo.verbena.h"
#include "tests/bench/rpc_meter.h"
#include "tests/bench/system_calls.h"

namespace verbena::bench {
namespace {

using rpc::Wait;

const ContextOptions kTcp = {.device = "tcp", .rdma = Rdma::kOff};

void Check(const absl::Status& status) {
  if (!status.ok()) Die(std::string(status.message()));
}
template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// A call whose answer is on its way into the caller's memory.
struct Filling {
  rpc::ServerCall<Wanted, Text> call;

  void Finish(const absl::Status& how) {
    const std::unique_ptr<Filling> gone(this);
    if (!how.ok()) return call.Finish(how);
    call.Finish(Text());
  }
};

class Answers final : public Bench::AsyncService {
 public:
  void Echo(rpc::ServerCall<Text, Text> call) override { call.Finish(call.request()); }
  void Fill(rpc::ServerCall<Wanted, Text> call) override {
    if (block_.size() < call.request().bytes()) block_.resize(call.request().bytes());
    const std::span from(block_.data(), call.request().bytes());
    auto* filling = new Filling{std::move(call)};
    filling->call.context().Push(filling->call.request().into(), 0, from,
                                 [filling](const absl::Status& how) { filling->Finish(how); });
  }

 private:
  std::vector<std::byte> block_ = std::vector<std::byte>(kBlock);
};

void Serve(Wait wait, const Options& options, Shared& shared) {
  Answers answers;
  auto server = Check(rpc::Server::Open({.context = kTcp, .wait = wait, .handler_threads = 0}));
  Check(server->Add(answers));
  Check(server->Start(options.address + ":0"));
  ServeUntilOver(shared, server->port(), SystemCalls);
}

std::unique_ptr<rpc::Channel> ConnectTo(Wait wait, const Options& options, const Shared& shared) {
  const std::string to = options.address + ":" + std::to_string(WaitForPort(shared));
  auto channel = Check(rpc::Channel::Open(to, {.context = kTcp, .wait = wait}));
  Check(channel->WaitUntilConnected(absl::Seconds(10)));
  return channel;
}

Text Message() {
  Text message;
  message.set_text(std::string(kMessage, 'x'));
  return message;
}

// How many frames a message carries.
void AddCounters(const rpc::Channel& channel, Counts* counts) {
  const rpc::SessionCounters session = channel.counters().session;
  auto at = counts->begin();
  while (at->name[0] != '\0') ++at;
  *at++ = {"messages_sent", session.messages_sent};
  *at++ = {"frames_sent", session.frames_sent};
  *at++ = {"frames_received", session.frames_received};
}

Result Echo(Wait wait, const Options& options, Shared& shared) {
  const auto channel = ConnectTo(wait, options, shared);
  const Bench::Client client(*channel);
  const Text request = Message();
  Result result = OneByOne(options, SystemCalls, [&] { Check(client.Echo(request).status()); });
  AddCounters(*channel, &result.client);
  sem_post(&shared.finished);
  return result;
}

// Calls that each start the next one when they are answered. All but Await() on the channel's
// thread.
template <typename Answer>
class Pipeline {
 public:
  Pipeline(const Options& options, size_t in_flight, unsigned look_every)
      : contexts_(in_flight), running_(in_flight), progress_(options.seconds, look_every) {
    sem_init(&idle_, 0, 0);
  }

  rpc::ClientContext& Context(size_t slot) { return contexts_[slot].emplace(); }
  // True: the slot is to be started again.
  bool Ended(const absl::StatusOr<Answer>& answer) {
    Check(answer.status());
    if (progress_.Next()) return true;
    if (--running_ == 0) sem_post(&idle_);
    return false;
  }
  Result Await(size_t bytes = 0) {
    while (sem_wait(&idle_) != 0) {
    }
    CountDelayOfThreads();
    Result result = progress_.Figure(bytes);
    result.client = cost_.Report(progress_.calls());
    return result;
  }

 private:
  std::vector<std::optional<rpc::ClientContext>> contexts_;
  size_t running_;
  sem_t idle_;
  Progress progress_;
  const Cost cost_{SystemCalls};
};

Result Threads(const Options& options, Shared& shared) {
  const auto channel = ConnectTo(Wait::kAdaptive, options, shared);
  const Bench::Client client(*channel);
  const Text request = Message();
  Result result = ByThreads(options, SystemCalls, [&] { Check(client.Echo(request).status()); });
  AddCounters(*channel, &result.client);
  sem_post(&shared.finished);
  return result;
}

Result Deep(const Options& options, Shared& shared) {
  const auto channel = ConnectTo(Wait::kSpin, options, shared);
  const Bench::Client client(*channel);
  const Text request = Message();
  Pipeline<Text> pipeline(options, kInFlight, kCallsALook);
  struct Slot {
    void Start() {
      client->Echo(*request, pipeline->Context(index), [this](const absl::StatusOr<Text>& answer) {
        if (pipeline->Ended(answer)) Start();
      });
    }
    const Bench::Client* client;
    const Text* request;
    Pipeline<Text>* pipeline;
    size_t index;
  };
  std::vector<Slot> slots;
  for (size_t i = 0; i < kInFlight; ++i) slots.push_back({&client, &request, &pipeline, i});
  for (Slot& slot : slots) slot.Start();
  Result result = pipeline.Await();
  AddCounters(*channel, &result.client);
  sem_post(&shared.finished);
  return result;
}

Result Bulk(const Options& options, Shared& shared) {
  const auto channel = ConnectTo(Wait::kSpin, options, shared);
  const Bench::Client client(*channel);
  Pipeline<Text> pipeline(options, kBlocksInFlight, 1);
  struct Slot {
    void Start() {
      rpc::ClientContext& context = pipeline->Context(index);
      Wanted wanted;
      wanted.set_bytes(kBlock);
      *wanted.mutable_into() = Check(channel->Lend(context, memory, rpc::BulkAccess::kWrite));
      client->Fill(wanted, context, [this](const absl::StatusOr<Text>& answer) {
        if (pipeline->Ended(answer)) Start();
      });
    }
    rpc::Channel* channel;
    const Bench::Client* client;
    Pipeline<Text>* pipeline;
    size_t index;
    std::vector<std::byte> memory = std::vector<std::byte>(kBlock);
  };
  std::vector<Slot> slots;
  for (size_t i = 0; i < kBlocksInFlight; ++i) {
    slots.push_back({channel.get(), &client, &pipeline, i});
  }
  for (Slot& slot : slots) slot.Start();
  Result result = pipeline.Await(kBlock);
  AddCounters(*channel, &result.client);
  sem_post(&shared.finished);
  return result;
}

Row Of(const char* name, Wait wait, std::function<Result(const Options&, Shared&)> measure) {
  return {name, [wait](const Options& options, Shared& shared) { Serve(wait, options, shared); },
          std::move(measure)};
}

Row EchoRow(const char* name, Wait wait) {
  return Of(name, wait,
            [wait](const Options& options, Shared& shared) { return Echo(wait, options, shared); });
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  using verbena::rpc::Wait;
  return Main(argc, argv,
              {EchoRow("echo_spin", Wait::kSpin), EchoRow("echo_block", Wait::kBlock),
               Of("echo_threads", Wait::kAdaptive, Threads), Of("echo_deep", Wait::kSpin, Deep),
               Of("bulk", Wait::kSpin, Bulk)});
}
