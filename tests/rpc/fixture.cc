// SPDX-License-Identifier: Apache-2.0
#include "tests/rpc/fixture.h"

#include <chrono>
#include <cstdlib>
#include <stdexcept>

#include "absl/strings/cord.h"

#ifdef __SANITIZE_THREAD__
// The system's Abseil is not built for the sanitizer, which so does not see that the last owner of
// a status synchronises with the others.
extern "C" const char* __tsan_default_suppressions() { return "race:absl::*::Status::Unref"; }
#endif

namespace verbena::testing {

ContextOptions ContextUnderTest() {
  if (std::getenv("VERBENA_RPC_ADDRESS") != nullptr) return {};
  return {.device = "tcp", .rdma = Rdma::kOff};
}

std::string AnyPort() {
  const char* address = std::getenv("VERBENA_RPC_ADDRESS");
  return std::string(address == nullptr ? "127.0.0.1" : address) + ":0";
}

std::vector<std::byte> Pattern(size_t bytes, uint32_t seed) {
  std::vector<std::byte> made(bytes);
  for (size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>((i + seed) % 251);
  return made;
}

uint64_t SumOf(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (std::byte byte : bytes) sum += static_cast<uint64_t>(byte);
  return sum;
}

void TestShelf::Echo(rpc::ServerCall<Text, Text> call) {
  echoes_.fetch_add(1);
  for (const auto& [key, value] : call.context().metadata()) {
    call.context().AddMetadata("re-" + key, value);
  }
  call.Finish(call.request());
}

void TestShelf::Do(rpc::ServerCall<Order, Text> call) {
  const Order& order = call.request();
  if (order.throw_()) throw std::runtime_error("thrown on demand");
  if (order.code() == 0) return call.Finish(Say(std::string(order.answer_bytes(), 'x')));
  absl::Status status(static_cast<absl::StatusCode>(order.code()), order.message());
  status.SetPayload("example.org/detail", absl::Cord("why"));
  call.Finish(status);
}

void TestShelf::Hold(rpc::ServerCall<Text, Text> call) {
  const std::lock_guard lock(lock_);
  held_.push_back(std::move(call));
  came_.notify_all();
}

rpc::Task<absl::Status> TestShelf::Count(rpc::ServerContext&, const Order& order,
                                         rpc::ServerStream<Order, Text>& stream) {
  for (uint64_t i = 0; i < order.answer_bytes(); ++i) {
    const Text text = Say(std::to_string(i) + order.message());
    if (!co_await stream.CoWrite(text)) co_return absl::CancelledError("nobody listens");
    written_.fetch_add(1);
  }
  if (order.throw_()) throw std::runtime_error("thrown on demand");
  co_return absl::Status(static_cast<absl::StatusCode>(order.code()), order.message());
}

rpc::Task<absl::StatusOr<Text>> TestShelf::Join(rpc::ServerContext&, Stream& stream) {
  Text all, next;
  while (co_await stream.CoRead(&next)) all.mutable_text()->append(next.text());
  co_return all;
}

rpc::Task<absl::Status> TestShelf::Chat(rpc::ServerContext&, Stream& stream) {
  Text next;
  while (co_await stream.CoRead(&next)) {
    if (!co_await stream.CoWrite(next)) co_return absl::CancelledError("nobody listens");
  }
  co_return absl::OkStatus();
}

TestShelf::HeldCall TestShelf::NextHeld() {
  std::unique_lock lock(lock_);
  if (!came_.wait_for(lock, absl::ToChronoSeconds(kLongEnough), [&] { return !held_.empty(); })) {
    conformance::Stop("no call came to be held", conformance::Line::Here());
  }
  HeldCall call = std::move(held_.front());
  held_.pop_front();
  return call;
}

namespace {

// A parcel on its way: the call, and the bytes here.
struct Moving {
  rpc::ServerCall<Parcel, Sum> call;
  std::vector<std::byte> bytes;

  void Finish(const absl::Status& status) {
    const std::unique_ptr<Moving> gone(this);
    if (!status.ok()) return call.Finish(status);
    Sum sum;
    sum.set_bytes(bytes.size());
    sum.set_sum(SumOf(bytes));
    call.Finish(sum);
  }
};

}  // namespace

void TestShelf::Take(rpc::ServerCall<Parcel, Sum> call) {
  const Parcel parcel = call.request();
  auto* moving = new Moving{std::move(call), std::vector<std::byte>(parcel.bytes())};
  moving->call.context().Pull(parcel.bulk(), parcel.offset(), moving->bytes,
                              [moving](const absl::Status& how) { moving->Finish(how); });
}

void TestShelf::Fill(rpc::ServerCall<Parcel, Sum> call) {
  const Parcel parcel = call.request();
  auto* moving = new Moving{std::move(call), Pattern(parcel.bytes(), parcel.seed())};
  moving->call.context().Push(parcel.bulk(), parcel.offset(), moving->bytes,
                              [moving](const absl::Status& how) { moving->Finish(how); });
}

std::unique_ptr<Server> Serve(rpc::Service& service, rpc::ServerOptions options,
                              const std::string& address) {
  options.context = ContextUnderTest();
  auto server = Check(Server::Open(options));
  Check(server->Add(service));
  Check(server->Start(address));
  return server;
}

std::unique_ptr<Channel> ChannelTo(const std::string& address, rpc::ChannelOptions options) {
  options.context = ContextUnderTest();
  return Check(Channel::Open(address, options));
}

}  // namespace verbena::testing
