// SPDX-License-Identifier: Apache-2.0
// A server of tests/rpc/shelf.proto and channels to it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rpc/channel.h"
#include "rpc/server.h"
#include "tests/conformance/check.h"
#include "tests/rpc/shelf.verbena.h"

namespace verbena::testing {

using conformance::Check;
using conformance::IsOk;
using conformance::StatusIs;
using rpc::BulkAccess;
using rpc::Channel;
using rpc::ClientContext;
using rpc::Server;

// Kernel TCP on loopback; or, where VERBENA_RPC_ADDRESS names an address of this machine, the
// device that VERBENA_DEVICE and VERBENA_RDMA choose there.
ContextOptions ContextUnderTest();
std::string AnyPort();  // of that address
// A failed wait fails its test; nothing waits so long otherwise.
inline constexpr absl::Duration kLongEnough = absl::Seconds(60);

inline Text Say(const std::string& text) {
  Text made;
  made.set_text(text);
  return made;
}
std::vector<std::byte> Pattern(size_t bytes, uint32_t seed);
uint64_t SumOf(std::span<const std::byte> bytes);

// Holds calls of Hold until the test lets them go.
class TestShelf final : public Shelf::AsyncService {
 public:
  using HeldCall = rpc::ServerCall<Text, Text>;

  void Echo(rpc::ServerCall<Text, Text> call) override;
  void Do(rpc::ServerCall<Order, Text> call) override;
  void Hold(rpc::ServerCall<Text, Text> call) override;
  void Take(rpc::ServerCall<Parcel, Sum> call) override;
  void Fill(rpc::ServerCall<Parcel, Sum> call) override;

  using Stream = rpc::ServerStream<Text, Text>;
  rpc::Task<absl::Status> Count(rpc::ServerContext& context, const Order& order,
                                rpc::ServerStream<Order, Text>& stream) override;
  rpc::Task<absl::StatusOr<Text>> Join(rpc::ServerContext& context, Stream& stream) override;
  rpc::Task<absl::Status> Chat(rpc::ServerContext& context, Stream& stream) override;

  HeldCall NextHeld();  // waits for one
  size_t echoes() const { return echoes_.load(); }
  size_t written() const { return written_.load(); }  // by Count

 private:
  std::atomic<size_t> echoes_ = 0;
  std::atomic<size_t> written_ = 0;
  std::mutex lock_;
  std::condition_variable came_;
  std::deque<HeldCall> held_;
};

std::unique_ptr<Server> Serve(rpc::Service& service, rpc::ServerOptions options = {},
                              const std::string& address = AnyPort());
std::unique_ptr<Channel> ChannelTo(const std::string& address, rpc::ChannelOptions options = {});

// A server and a channel to it.
struct Shop {
  explicit Shop(rpc::ServerOptions server_options = {}, rpc::ChannelOptions options = {})
      : server(Serve(shelf, server_options)),
        channel(ChannelTo(server->address(), options)),
        client(*channel) {
    Check(channel->WaitUntilConnected(kLongEnough));
  }
  TestShelf shelf;
  std::unique_ptr<Server> server;
  std::unique_ptr<Channel> channel;
  Shelf::Client client;
};

}  // namespace verbena::testing
