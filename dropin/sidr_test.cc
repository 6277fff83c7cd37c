// SPDX-License-Identifier: Apache-2.0
// Service ID resolution: its packets, and a caller and a listener over loopback.
#include "dropin/sidr.h"

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "fallback/io/kernel_world.h"
#include "gtest/gtest.h"

namespace verbena::dropin {
namespace {

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

SidrMessage Request(uint64_t id, const std::string& data = "hello") {
  return {.kind = SidrKind::kRequest, .id = id, .qp_number = 7, .qkey = 9, .private_data = data};
}

TEST(SidrMessages, RoundTrip) {
  const std::optional<SidrMessage> m = DecodeSidr(Bytes(EncodeSidr(Request(0x0102030405060708))));
  ASSERT_TRUE(m);
  EXPECT_EQ(m->kind, SidrKind::kRequest);
  EXPECT_EQ(m->id, 0x0102030405060708u);
  EXPECT_EQ(m->qp_number, 7u);
  EXPECT_EQ(m->qkey, 9u);
  EXPECT_EQ(m->private_data, "hello");
}

TEST(SidrMessages, RefusesEveryTruncationAndWhatIsLonger) {
  const std::string whole = EncodeSidr(Request(1));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(DecodeSidr(Bytes(whole).first(size))) << size;
  }
  EXPECT_FALSE(DecodeSidr(Bytes(whole + "x")));
  EXPECT_TRUE(DecodeSidr(Bytes(EncodeSidr(Request(1, std::string(kMaxSidrData, 'x'))))));
  EXPECT_FALSE(DecodeSidr(Bytes(EncodeSidr(Request(1, std::string(kMaxSidrData + 1, 'x'))))));
}

// Magic, version and kind.
TEST(SidrMessages, RefusesEveryBitThatIsWrong) {
  for (size_t byte = 0; byte < 6; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string packet = EncodeSidr(Request(1));
      packet[byte] = static_cast<char>(packet[byte] ^ (1 << bit));
      const bool another_kind = byte == 5 && bit == 1;  // 1 becomes 3
      EXPECT_EQ(DecodeSidr(Bytes(packet)).has_value(), another_kind) << byte << " " << bit;
    }
  }
}

class Sidr : public testing::Test {
 protected:
  Sidr() : world_(io::NewKernelWorld().value()), hub_(world_.get()) { world_->Start(&hub_); }
  ~Sidr() override {
    call_.reset();
    listener_.reset();
    world_->Stop(&hub_);
  }
  static provider::Address Loopback(uint16_t port = 0) {
    return provider::Address::FromIp("127.0.0.1", port).value();
  }
  void Listen(SidrListener::Arrived arrived) {
    listener_ = SidrListener::Start(&hub_, Loopback(), std::move(arrived));
    ASSERT_NE(listener_, nullptr);
  }
  void Call(uint16_t port, const SidrMessage& request) {
    call_ = SidrCall::Start(&hub_, Loopback(), Loopback(port), request,
                            [this](const SidrMessage* answer, int error) {
                              if (answer != nullptr) answer_ = *answer;
                              error_ = error;
                              done_ = true;
                              world_->Changed();
                            });
    ASSERT_NE(call_, nullptr);
  }
  bool Wait(absl::FunctionRef<bool()> ready) {
    return world_->Await(ready, hub_.Now() + 10'000'000'000);
  }

  std::unique_ptr<io::World> world_;
  fallback::Hub hub_;
  std::unique_ptr<SidrListener> listener_;
  std::unique_ptr<SidrCall> call_;
  std::atomic<bool> done_{false};
  SidrMessage answer_;
  int error_ = 0;
};

TEST_F(Sidr, ACallIsAnswered) {
  Listen([](const SidrCaller& caller, const SidrMessage& request) {
    EXPECT_EQ(request.private_data, "hello");
    EXPECT_EQ(caller.to, Loopback().bytes());
    SidrListener::Answer(caller, {.kind = SidrKind::kReply,
                                  .id = caller.id,
                                  .qp_number = 0x123,
                                  .qkey = 5,
                                  .private_data = "welcome"});
  });
  Call(listener_->port(), Request(11));
  ASSERT_TRUE(Wait([&] { return done_.load(); }));
  EXPECT_EQ(error_, 0);
  EXPECT_EQ(answer_.kind, SidrKind::kReply);
  EXPECT_EQ(answer_.qp_number, 0x123u);
  EXPECT_EQ(answer_.private_data, "welcome");
}

TEST_F(Sidr, NobodyListens) {
  Listen([](const SidrCaller&, const SidrMessage&) {});
  const uint16_t port = listener_->port();
  listener_.reset();
  Call(port, Request(12));
  ASSERT_TRUE(Wait([&] { return done_.load(); }));
  EXPECT_EQ(error_, ECONNREFUSED);
}

// The same request twice, and packets that are none, from a stranger's socket.
TEST_F(Sidr, ARequestArrivesOnceHoweverOftenItIsSent) {
  std::atomic<int> arrived{0};
  Listen([&](const SidrCaller& caller, const SidrMessage&) {
    ++arrived;
    SidrListener::Answer(caller, {.kind = SidrKind::kRefusal, .id = caller.id});
    world_->Changed();
  });
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_GE(fd, 0);
  const provider::Address to = Loopback(listener_->port());
  ASSERT_EQ(connect(fd, to.raw(), to.length), 0);
  const std::string request = EncodeSidr(Request(13));
  const std::string large(4096, 'x');
  for (const std::string& packet : {std::string("?"), large, request, request, request}) {
    EXPECT_EQ(send(fd, packet.data(), packet.size(), 0), static_cast<ssize_t>(packet.size()));
  }
  char room[kMaxSidr];
  for (int answers = 0; answers < 3; ++answers) {  // each is answered
    ASSERT_GT(recv(fd, room, sizeof(room), 0), 0);
  }
  EXPECT_EQ(arrived, 1);
  close(fd);
}

}  // namespace
}  // namespace verbena::dropin
