// SPDX-License-Identifier: Apache-2.0
#include "fallback/lingerer.h"

#include <sys/socket.h>

#include <cerrno>
#include <memory>

#include "fallback/hub.h"
#include "fallback/io/sim_network.h"
#include "gtest/gtest.h"

namespace verbena::fallback {
namespace {

// A service ends before it came to close a stream whose queue pair is gone, as when its thread got
// no time.
// Expect: the stream ends with it, and the peer notices.
TEST(Lingerer, EndsWithTheService) {
  io::SimNetwork network(io::SimOptions::Calm());
  const std::unique_ptr<io::World> here = network.NewWorld("10.0.0.1");
  const std::unique_ptr<io::World> there = network.NewWorld("10.0.0.2");
  const io::Address address = *io::Address::FromIp("10.0.0.2", 7471);
  const io::Socket listener = *there->streams().Listen(address, 1);
  const io::Socket stream = *here->streams().Connect(address, {});
  int accepted = -EAGAIN;
  ASSERT_TRUE(there->Await([&] { return (accepted = there->streams().Accept(listener)) >= 0; },
                           network.Now() + 1'000'000'000));
  {
    Hub hub(here.get());
    hub.Linger(stream, {});
    EXPECT_TRUE(hub.lingering());
  }
  ssize_t heard = -EAGAIN;
  std::byte scrap;
  const iovec room{&scrap, 1};
  there->Await(
      [&] {
        return (heard = there->streams().Receive(accepted, {&room, 1})) != -EAGAIN;
      },
      network.Now() + 1'000'000'000);
  EXPECT_EQ(heard, -ECONNRESET);
}

}  // namespace
}  // namespace verbena::fallback
