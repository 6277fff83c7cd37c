// SPDX-License-Identifier: Apache-2.0
// The sinks of reads, on a library that registers what, and when, a case wants.
#include "verbs/iwarp_domain.h"

#include <sys/resource.h>

#include <cerrno>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

using ::testing::HasSubstr;

// What the kernel has, and how it takes the next registrations.
struct Kernel {
  std::mutex mutex;
  std::set<ibv_mr*> regions;
  int registrations = 0;
  int error = 0;               // that they fail with
  std::future<void> hold;      // the next one waits for this
  std::promise<void> is_held;  // and says so
};
Kernel* kernel = nullptr;

#undef ibv_reg_mr
ibv_mr* RegisterThere(ibv_pd* pd, void* at, size_t length, int) {
  std::future<void> hold;
  {
    const std::lock_guard lock(kernel->mutex);
    ++kernel->registrations;
    std::swap(hold, kernel->hold);
  }
  if (hold.valid()) {
    kernel->is_held.set_value();
    hold.wait();
  }
  const std::lock_guard lock(kernel->mutex);
  if (kernel->error != 0) {
    errno = kernel->error;
    return nullptr;
  }
  const auto key = static_cast<uint32_t>(1000 + kernel->registrations);
  auto* const mr = new ibv_mr{nullptr, pd, at, length, 0, key, key};
  kernel->regions.insert(mr);
  return mr;
}

int Deregister(ibv_mr* mr) {
  const std::lock_guard lock(kernel->mutex);
  EXPECT_EQ(kernel->regions.erase(mr), 1u);
  delete mr;
  return 0;
}

class Sinks : public ::testing::Test {
 protected:
  Sinks() {
    kernel = &kernel_;
    library_.reg_mr = RegisterThere;
    library_.dereg_mr = Deregister;
    domain_ = IwarpDomain::Create(&pd_, library_);
    kernel_.registrations = 0;
  }
  ~Sinks() override {
    domain_.reset();
    EXPECT_EQ(kernel_.regions.size(), 0u);
  }

  // A region of the program's with that key.
  ibv_mr Region(uint32_t key, size_t length = sizeof(memory_)) {
    return {nullptr, &pd_, memory_, length, 0, key, key};
  }
  void Add(const ibv_mr& region, Access access = Access::kLocalWrite, ibv_mr* sink = nullptr) {
    domain_->Add(region, reinterpret_cast<uint64_t>(region.addr), access, sink);
  }
  uint32_t Sink(uint32_t key) { return domain_->keys().Sink(key); }

  char memory_[64];
  ibv_pd pd_{};
  Kernel kernel_;
  Library library_;
  std::unique_ptr<IwarpDomain> domain_;
};

TEST_F(Sinks, OneIsMadeForTheFirstRead) {
  // Expect: no registration before a read, one for all of them, none where peers may write anyhow.
  Add(Region(1));
  Add(Region(2), Access::kLocalWrite | Access::kRemoteWrite);
  EXPECT_EQ(Sink(1), 0u);
  for (int i = 0; i < 3; ++i) {
    domain_->PrepareSink(1);
    domain_->PrepareSink(2);
    domain_->PrepareSink(3);  // nobody's
  }
  EXPECT_EQ(kernel_.registrations, 1);
  EXPECT_NE(Sink(1), 0u);
  EXPECT_EQ(Sink(2), 2u);
  EXPECT_EQ(Sink(3), 0u);
  Deregister(domain_->Remove(1));
  EXPECT_EQ(domain_->Remove(2), nullptr);
  EXPECT_EQ(Sink(1), 0u);
}

TEST_F(Sinks, ARegistrationThatTakesLongHoldsUpItsOwnRegionAlone) {
  // The kernel pins one region for a while.
  // Expect: others come, are read into and go meanwhile; who reads into the same, or closes it,
  // waits, and it is registered once.
  std::promise<void> let_go;
  kernel_.hold = let_go.get_future();
  Add(Region(1));
  std::thread first([&] { domain_->PrepareSink(1); });
  kernel_.is_held.get_future().wait();
  Add(Region(2));
  domain_->PrepareSink(2);
  EXPECT_NE(Sink(2), 0u);
  Deregister(domain_->Remove(2));
  std::future<void> second = std::async(std::launch::async, [&] { domain_->PrepareSink(1); });
  std::future<ibv_mr*> closer = std::async(std::launch::async, [&] {
    second.wait();
    return domain_->Remove(1);
  });
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  let_go.set_value();
  first.join();
  ibv_mr* const sink = closer.get();
  ASSERT_NE(sink, nullptr);
  Deregister(sink);
  EXPECT_EQ(kernel_.registrations, 2);
}

TEST_F(Sinks, ARefusalIsRememberedAndSaysTheLimit) {
  // The kernel refuses to pin as much, and many reads are posted.
  // Expect: it is asked once; the reason names the need, the limit and the remedy. A region that is
  // registered anew is tried anew.
  rlimit before{}, small{};
  getrlimit(RLIMIT_MEMLOCK, &before);
  small = {65536, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &small), 0);
  kernel_.error = ENOMEM;
  Add(Region(1, 1 << 20));
  for (int i = 0; i < 100; ++i) domain_->PrepareSink(1);
  EXPECT_LE(kernel_.registrations, 1);  // 0: an ordinary user's limit is known beforehand
  EXPECT_EQ(Sink(1), 0u);
  EXPECT_THAT(std::string(domain_->why_no_sink().message()),
              ::testing::AllOf(HasSubstr("read into [0x"), HasSubstr("1048576 bytes"),
                               HasSubstr("65536 (RLIMIT_MEMLOCK)"), HasSubstr("ulimit -l")));
  setrlimit(RLIMIT_MEMLOCK, &before);
  kernel_.error = 0;
  EXPECT_EQ(domain_->Remove(1), nullptr);
  Add(Region(1));
  domain_->PrepareSink(1);
  EXPECT_NE(Sink(1), 0u);
  Deregister(domain_->Remove(1));
}

TEST_F(Sinks, ARegionThatStaysKeepsItsSink) {
  // A region is about to be closed, and the device refuses (a window is bound to it).
  // Expect: the sink was not deregistered, and reads go on into it.
  Add(Region(1));
  domain_->PrepareSink(1);
  const uint32_t key = Sink(1);
  ibv_mr* const sink = domain_->Remove(1);
  ASSERT_NE(sink, nullptr);
  EXPECT_EQ(kernel_.regions.count(sink), 1u);
  Add(Region(1), Access::kLocalWrite, sink);
  EXPECT_EQ(Sink(1), key);
  domain_->PrepareSink(1);
  EXPECT_EQ(kernel_.registrations, 1);
  Deregister(domain_->Remove(1));
}

}  // namespace
}  // namespace verbena::verbs
