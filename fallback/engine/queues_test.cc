// SPDX-License-Identifier: Apache-2.0
// The rings: completions, receives, and what one send call is gathered from.
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "fallback/engine/completion_ring.h"
#include "fallback/engine/receive_queue.h"
#include "fallback/engine/test_allocations.h"
#include "fallback/engine/transmit_batch.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

struct Bell : CompletionObserver {
  void OnNotify() override { ++notified; }
  void OnPushed() override { ++pushed; }
  void OnOverflow() override { ++overflows; }
  int notified = 0, pushed = 0, overflows = 0;
};

WorkCompletion Wc(uint64_t id, uint32_t qp = 1, WcStatus status = WcStatus::kSuccess) {
  WorkCompletion wc;
  wc.id = id;
  wc.qp_number = qp;
  wc.status = status;
  return wc;
}

class Completions : public testing::Test {
 protected:
  std::vector<uint64_t> Pop(size_t most = 100) {
    std::vector<WorkCompletion> out(most);
    out.resize(ring_.Pop(out));
    std::vector<uint64_t> ids;
    for (const WorkCompletion& wc : out) ids.push_back(wc.id);
    return ids;
  }
  Bell bell_;
  CompletionRing ring_{4, &bell_};
};
using Ids = std::vector<uint64_t>;

TEST_F(Completions, KeepTheirOrderAroundTheEnd) {
  for (uint64_t i = 0; i < 50; i += 3) {
    for (uint64_t k = i; k < i + 3; ++k) ring_.Push(Wc(k));
    EXPECT_EQ(Pop(2), (Ids{i, i + 1}));
    EXPECT_EQ(Pop(), (Ids{i + 2}));
  }
  EXPECT_EQ(Pop(), Ids{});
  EXPECT_TRUE(ring_.empty());
}

TEST_F(Completions, OverflowOnce) {
  // Six into four.
  // Expect: the first four stay, one call, two counted.
  for (uint64_t i = 0; i < 6; ++i) ring_.Push(Wc(i));
  EXPECT_TRUE(ring_.overflowed());
  EXPECT_EQ(bell_.overflows, 1);
  EXPECT_EQ(ring_.counters().overflows, 2u);
  EXPECT_EQ(Pop(), (Ids{0, 1, 2, 3}));
}

TEST_F(Completions, ArmedForAny) {
  ring_.Push(Wc(1));
  ring_.Arm(Notify::kAny);
  EXPECT_EQ(bell_.notified, 0);
  ring_.Push(Wc(2));
  ring_.Push(Wc(3));
  EXPECT_EQ(bell_.notified, 1);
  EXPECT_FALSE(ring_.armed());
}

TEST_F(Completions, ArmedForSolicited) {
  ring_.Arm(Notify::kSolicited);
  ring_.Push(Wc(1));
  EXPECT_EQ(bell_.notified, 0);
  ring_.Push(Wc(2), /*solicited=*/true);
  EXPECT_EQ(bell_.notified, 1);
  ring_.Arm(Notify::kSolicited);
  ring_.Push(Wc(3, 1, WcStatus::kFlushed));
  EXPECT_EQ(bell_.notified, 2);
}

TEST_F(Completions, WiderArmingWins) {
  ring_.Arm(Notify::kAny);
  ring_.Arm(Notify::kSolicited);
  ring_.Push(Wc(1));
  EXPECT_EQ(bell_.notified, 1);
  ring_.Arm(Notify::kSolicited);
  ring_.Arm(Notify::kAny);
  ring_.Push(Wc(2));
  EXPECT_EQ(bell_.notified, 2);
}

TEST_F(Completions, WaitersAreToldOfEach) {
  EXPECT_TRUE(ring_.BeginWait());
  ring_.Push(Wc(1));
  EXPECT_FALSE(ring_.BeginWait());
  ring_.EndWait();
  ring_.EndWait();
  ring_.Push(Wc(2));
  EXPECT_EQ(bell_.pushed, 1);
}

TEST_F(Completions, ResizeKeepsWhatWaits) {
  for (uint64_t i = 0; i < 4; ++i) ring_.Push(Wc(i));
  Pop(2);
  ring_.Push(Wc(4));
  EXPECT_FALSE(ring_.Resize(2));
  EXPECT_TRUE(ring_.Resize(3));
  EXPECT_EQ(ring_.entries(), 3u);
  EXPECT_TRUE(ring_.Resize(8));
  for (uint64_t i = 5; i < 10; ++i) ring_.Push(Wc(i));
  EXPECT_FALSE(ring_.overflowed());
  EXPECT_EQ(Pop(), (Ids{2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(Completions, ForgetOneQueuePair) {
  ring_.Push(Wc(0));
  ring_.Push(Wc(0));
  Pop(2);
  for (uint64_t i = 1; i <= 4; ++i) ring_.Push(Wc(i, i % 2 == 0 ? 2 : 1));
  ring_.Forget(1);
  EXPECT_EQ(Pop(), (Ids{2, 4}));
}

TEST(CompletionThreads, NothingIsLost) {
  // Two threads push, two pop.
  Bell bell;
  CompletionRing ring(1024, &bell);
  std::atomic<uint64_t> sum{0}, seen{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 2; ++t) {
    threads.emplace_back([&ring] {
      for (uint64_t i = 1; i <= 5000;) {
        if (ring.entries() > 0 && ring.empty()) {
          for (uint64_t k = 0; k < 10; ++k) ring.Push(Wc(i++));
        } else {
          std::this_thread::yield();
        }
      }
    });
    threads.emplace_back([&] {
      WorkCompletion out[7];
      while (seen < 10000) {
        const size_t n = ring.Pop(out);
        for (size_t i = 0; i < n; ++i) sum += out[i].id;
        seen += n;
        if (n == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(sum, 2u * 5000 * 5001 / 2);
}

class Receives : public testing::Test {
 protected:
  PostResult Post(std::initializer_list<uint64_t> ids) {
    std::vector<ReceiveWr> wrs;
    for (const uint64_t id : ids) wrs.push_back({.local = Sge{id, 10, 1}, .id = id});
    return queue_.Post(wrs, &wake_);
  }
  uint64_t Take() {
    limit_ = false;
    return queue_.Take(&receive_, &limit_) ? receive_.id : 0;
  }
  ReceiveQueue queue_{4, 2};
  Receive receive_;
  bool wake_ = false;
  bool limit_ = false;
};

TEST_F(Receives, InOrderAroundTheEnd) {
  for (uint64_t i = 1; i < 40; i += 3) {
    EXPECT_EQ(Post({i, i + 1, i + 2}).accepted, 3u);
    for (uint64_t k = i; k < i + 3; ++k) {
      EXPECT_EQ(Take(), k);
      EXPECT_EQ(receive_.sges[0].address, k);
      EXPECT_EQ(receive_.length, 10u);
    }
  }
  EXPECT_TRUE(queue_.empty());
}

TEST_F(Receives, FullQueueTakesWhatFits) {
  const PostResult r = Post({1, 2, 3, 4, 5});
  EXPECT_EQ(r.accepted, 4u);
  EXPECT_EQ(r.error, PostError::kQueueFull);
  EXPECT_EQ(queue_.counters().posted, 4u);
}

TEST_F(Receives, TooManyEntriesEndThePost) {
  const Sge three[3] = {};
  const ReceiveWr wrs[] = {{.id = 1}, {.local = std::span<const Sge>(three), .id = 2}, {.id = 3}};
  const PostResult r = queue_.Post(wrs, &wake_);
  EXPECT_EQ(r.accepted, 1u);
  EXPECT_EQ(r.error, PostError::kTooManySges);
  EXPECT_EQ(Take(), 1u);
  EXPECT_EQ(Take(), 0u);
}

TEST_F(Receives, WakeOnlyWhoFoundItEmpty) {
  EXPECT_TRUE(Post({1}).ok());
  EXPECT_FALSE(wake_);
  Take();
  EXPECT_EQ(Take(), 0u);
  Post({});
  EXPECT_FALSE(wake_);
  Post({2});
  EXPECT_TRUE(wake_);
  Post({3});
  EXPECT_FALSE(wake_);
  EXPECT_EQ(queue_.counters().empty, 1u);
}

TEST_F(Receives, LimitIsOneShot) {
  Post({1, 2, 3, 4});
  EXPECT_FALSE(queue_.SetLimit(3));
  Take();
  EXPECT_FALSE(limit_);
  Take();
  EXPECT_TRUE(limit_);
  Take();
  EXPECT_FALSE(limit_);
  EXPECT_EQ(queue_.limits().limit, 0u);
  EXPECT_EQ(queue_.counters().limit_events, 1u);
}

TEST_F(Receives, LimitThatIsPassedAlready) {
  Post({1});
  EXPECT_TRUE(queue_.SetLimit(2));
  Take();
  EXPECT_FALSE(limit_);
  EXPECT_FALSE(queue_.SetLimit(0));
}

TEST_F(Receives, ClearedIsEmpty) {
  Post({1, 2});
  queue_.Clear();
  EXPECT_EQ(Take(), 0u);
  Post({3});
  EXPECT_EQ(Take(), 3u);
}

std::string TextOf(const TransmitBatch& batch) {
  std::string out;
  for (const iovec& v : batch.Vectors()) out.append(static_cast<char*>(v.iov_base), v.iov_len);
  return out;
}

class Batch : public testing::Test {
 protected:
  void Header(char c, size_t n = 20) { std::memset(batch_.Append(n), c, n); }
  void External(const std::string& data) {
    batch_.AppendExternal(reinterpret_cast<const std::byte*>(data.data()), data.size());
  }
  TransmitBatch batch_;
};

TEST_F(Batch, NeighboursAreOneVector) {
  Header('a');
  Header('b');
  EXPECT_EQ(batch_.Vectors().size(), 1u);
  EXPECT_EQ(batch_.unsent(), 40u);
}

TEST_F(Batch, SmallPiecesAreCopied) {
  // Expect: at the limit a copy, above it the memory itself.
  std::string small(kCopyLimit, 's'), large(kCopyLimit + 1, 'l');
  External(small);
  External(large);
  small[0] = large[0] = 'X';
  const std::string text = TextOf(batch_);
  EXPECT_EQ(text[0], 's');
  EXPECT_EQ(text[kCopyLimit], 'X');
  EXPECT_EQ(batch_.Vectors().size(), 2u);
}

TEST_F(Batch, PartlySent) {
  // Header, large payload, trailer; sent in steps of every size.
  const std::string large(1000, 'l');
  for (const size_t step : {1u, 7u, 20u, 21u, 1000u, 1023u}) {
    batch_.Clear();
    Header('h');
    External(large);
    Header('t', 4);
    const std::string all = TextOf(batch_);
    for (size_t done = 0; done < all.size();) {
      ASSERT_EQ(TextOf(batch_), all.substr(done));
      const size_t n = std::min(step, all.size() - done);
      batch_.Sent(n);
      done += n;
      ASSERT_EQ(batch_.unsent(), all.size() - done);
    }
    EXPECT_TRUE(batch_.empty());
  }
}

TEST_F(Batch, DetachedFromItsMemory) {
  std::string large(1000, 'l');
  Header('h');
  External(large);
  Header('t', 4);
  batch_.Sent(100);
  const std::string rest = TextOf(batch_);
  EXPECT_TRUE(batch_.Detach());
  large.assign(1000, 'X');
  EXPECT_EQ(TextOf(batch_), rest);
  EXPECT_EQ(batch_.unsent(), rest.size());
  batch_.Sent(rest.size());
  EXPECT_TRUE(batch_.empty());
  EXPECT_TRUE(batch_.Detach());
  EXPECT_TRUE(batch_.Vectors().empty());
}

TEST_F(Batch, NoMemoryToDetach) {
  std::string large(1000, 'l');
  External(large);
  RefuseQuietly(true);
  EXPECT_FALSE(batch_.Detach());
  RefuseQuietly(false);
  EXPECT_TRUE(batch_.empty());
}

TEST_F(Batch, FullBeforeAnythingOverflows) {
  // FPDUs of the most arena and the most vectors, until there is no room.
  // Expect: within the limits of one send call.
  const std::string large(kCopyLimit + 1, 'l');
  while (batch_.HasRoom()) {
    Header('h');
    for (uint32_t i = 0; i < kMaxSge; ++i) External(large);
    Header('t', 7);
  }
  EXPECT_LE(batch_.Vectors().size(), static_cast<size_t>(kBatchVectors));
  batch_.Clear();
  EXPECT_TRUE(batch_.HasRoom());
  while (batch_.HasRoom()) {
    for (uint32_t i = 0; i < kMaxSge; ++i) Header('h', kCopyLimit);
  }
  EXPECT_LE(batch_.unsent(), kBatchArena);
}

}  // namespace
}  // namespace verbena::engine
