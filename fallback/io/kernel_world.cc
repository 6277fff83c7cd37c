// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/kernel_world.h"

#include <assert.h>
#include <pthread.h>
#include <sys/random.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "fallback/io/epoll_poller.h"
#include "fallback/io/kernel_datagrams.h"
#include "fallback/io/kernel_streams.h"
#include "transport/thread.h"

namespace verbena::io {
namespace {

std::chrono::steady_clock::time_point TimePoint(Nanos at) {
  // libstdc++'s steady clock is CLOCK_MONOTONIC, as the poller's.
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(at));
}

class KernelWorld final : public World {
 public:
  explicit KernelWorld(std::unique_ptr<EpollPoller> poller) : poller_(std::move(poller)) {}
  ~KernelWorld() override;

  absl::Status StartThread();

  Streams& streams() override { return streams_; }
  Datagrams* datagrams() override { return &datagrams_; }
  Poller& poller() override { return *poller_; }
  void Random(std::span<uint8_t> out) override {
    while (getrandom(out.data(), out.size(), 0) != static_cast<ssize_t>(out.size())) {
    }
  }
  bool descriptors() const override { return true; }
  void Start(Service* service) override;
  void Stop(Service* service) override;
  bool Await(absl::FunctionRef<bool()> ready, Nanos deadline) override;
  void Changed() override;
  void Nudge() override {}

 private:
  static void* Main(void* self);
  void Run();

  KernelStreams streams_;
  KernelDatagrams datagrams_;
  const std::unique_ptr<EpollPoller> poller_;

  // The service thread. service_ is set by Start and cleared by the thread itself.
  pthread_t thread_{};
  bool has_thread_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  Service* service_ = nullptr;  // guarded by mutex_
  bool quit_ = false;           // guarded by mutex_
  std::atomic<bool> stopping_{false};

  // Await and Changed.
  std::atomic<int> waiters_{0};
  std::mutex wait_mutex_;
  std::condition_variable wait_changed_;
  uint64_t changes_ = 0;  // guarded by wait_mutex_; counts only while somebody waits
};

absl::Status KernelWorld::StartThread() {
  const absl::Status started = provider::StartThread("verbena", &KernelWorld::Main, this, &thread_);
  has_thread_ = started.ok();
  return started;
}

KernelWorld::~KernelWorld() {
  if (!has_thread_) return;
  {
    std::lock_guard lock(mutex_);
    assert(service_ == nullptr && "destroyed with a service in it; call Stop before");
    quit_ = true;
  }
  changed_.notify_all();
  pthread_join(thread_, nullptr);
}

void* KernelWorld::Main(void* self) {
  static_cast<KernelWorld*>(self)->Run();
  return nullptr;
}

void KernelWorld::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return service_ != nullptr || quit_; });
    if (service_ == nullptr) return;
    Service* const service = service_;
    lock.unlock();
    while (!stopping_.load()) service->Turn(service->NextDeadline());
    lock.lock();
    service_ = nullptr;
    changed_.notify_all();
  }
}

void KernelWorld::Start(Service* service) {
  {
    std::lock_guard lock(mutex_);
    assert(service_ == nullptr && "Start: it turns a service already");
    stopping_.store(false);
    service_ = service;
  }
  changed_.notify_all();
}

void KernelWorld::Stop([[maybe_unused]] Service* service) {
  assert(!pthread_equal(pthread_self(), thread_) && "Stop called from within a turn");
  std::unique_lock lock(mutex_);
  assert(service_ == service && "Stop: not the service that was started");
  // In this order: the wait that the wake ends is followed by a look at stopping_.
  stopping_.store(true);
  poller_->Wake();
  changed_.wait(lock, [this] { return service_ == nullptr; });
}

// No wake-up is lost: the waiter counts itself and then looks (ready); the changer changes and
// then looks at the count. With a full barrier between the two steps on both sides, at least one
// of them sees the other's first step: either ready() sees the change, or Changed() sees the
// waiter and moves changes_, which was read before ready() was asked.
bool KernelWorld::Await(absl::FunctionRef<bool()> ready, Nanos deadline) {
  if (ready()) return true;
  waiters_.fetch_add(1, std::memory_order_seq_cst);
  bool result = false;
  for (bool in_time = true;;) {
    std::unique_lock lock(wait_mutex_);
    const uint64_t seen = changes_;
    lock.unlock();
    // Without the lock: ready() may take locks under which others call Changed().
    result = ready();
    if (result || !in_time) break;
    lock.lock();
    const auto moved = [this, seen] { return changes_ != seen; };
    if (deadline == kNever) {
      wait_changed_.wait(lock, moved);
    } else {
      in_time = wait_changed_.wait_until(lock, TimePoint(deadline), moved);
    }
  }
  waiters_.fetch_sub(1, std::memory_order_seq_cst);
  return result;
}

void KernelWorld::Changed() {
#if defined(__SANITIZE_THREAD__)
  const int waiters = waiters_.fetch_add(0, std::memory_order_seq_cst);  // TSan knows no fences
#else
  // A load alone may overtake the caller's store, on x86 too; the fence is the barrier that Await
  // relies on. No write to shared memory, no lock, no system call when nobody waits.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const int waiters = waiters_.load(std::memory_order_relaxed);
#endif
  if (waiters == 0) return;
  {
    std::lock_guard lock(wait_mutex_);
    ++changes_;
  }
  wait_changed_.notify_all();
}

}  // namespace

absl::StatusOr<std::unique_ptr<World>> NewKernelWorld() {
  absl::StatusOr<std::unique_ptr<EpollPoller>> poller = EpollPoller::Create();
  if (!poller.ok()) return poller.status();
  auto world = std::make_unique<KernelWorld>(*std::move(poller));
  if (absl::Status started = world->StartThread(); !started.ok()) return started;
  return std::unique_ptr<World>(std::move(world));
}

}  // namespace verbena::io
