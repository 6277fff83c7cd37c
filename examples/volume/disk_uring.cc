// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <thread>

#include "examples/volume/disk.h"

namespace verbena::volume {
namespace {

constexpr unsigned kEntries = 256;  // to submit; each is submitted at once
constexpr unsigned kMostInFlight = 4096;

// What the page cache has is done when the submission returns: whoever submitted takes it from the
// ring by itself. Only what comes later wakes the thread.
class UringDisk final : public Disk {
 public:
  static std::unique_ptr<Disk> Open(absl::Status* why) {
    auto disk = std::unique_ptr<UringDisk>(new UringDisk);
    io_uring_params parameters = {};
    parameters.flags = IORING_SETUP_CQSIZE;
    parameters.cq_entries = kMostInFlight;
    int error = io_uring_queue_init_params(kEntries, &disk->ring_, &parameters);
    if (error == 0) {
      disk->open_ = true;
      disk->event_ = eventfd(0, EFD_CLOEXEC);
      error = io_uring_register_eventfd(&disk->ring_, disk->event_);
    }
    if (error != 0) {
      *why = absl::ErrnoToStatus(-error, "io_uring");
      return nullptr;
    }
    disk->thread_ = std::thread([its = disk.get()] { its->Loop(); });
    return disk;
  }

  ~UringDisk() override {
    if (thread_.joinable()) {
      stop_.store(true);
      WakeThread();
      thread_.join();
    }
    if (event_ >= 0) close(event_);
    if (open_) io_uring_queue_exit(&ring_);
  }

  const char* name() const override { return "io_uring"; }

  void Submit(DiskOperation& operation) override {
    Done done;
    {
      const std::lock_guard guard(lock_);
      (void)io_uring_cq_eventfd_toggle(&ring_, false);
      io_uring_sqe* entry = io_uring_get_sqe(&ring_);
      if (entry == nullptr) {
        done.Add(operation, -EAGAIN);
      } else {
        Fill(entry, operation);
      }
      const bool submitted = io_uring_submit(&ring_) >= 0;
      (void)io_uring_cq_eventfd_toggle(&ring_, true);
      // Before the look at the ring: what comes behind that look is to find it enabled.
      std::atomic_thread_fence(std::memory_order_seq_cst);
      // From here on the thread is told; what came before is taken here, whosever it is.
      const bool more = TakeLocked(done);
      if (more || !submitted) WakeThread();
    }
    done.Run();
  }

 private:
  struct Done {
    void Add(DiskOperation& operation, int result) { all[count++] = {&operation, result}; }
    bool full() const { return count == all.size(); }
    void Run() const {
      for (size_t i = 0; i < count; ++i) all[i].operation->Complete(all[i].result);
    }
    struct One {
      DiskOperation* operation;
      int result;
    };
    std::array<One, 64> all;
    size_t count = 0;
  };

  static void Fill(io_uring_sqe* entry, DiskOperation& operation) {
    const auto bytes = static_cast<unsigned>(operation.bytes);
    switch (operation.kind) {
      case DiskOperation::Kind::kRead:
        io_uring_prep_read(entry, operation.fd, operation.memory, bytes, operation.offset);
        break;
      case DiskOperation::Kind::kWrite:
        io_uring_prep_write(entry, operation.fd, operation.memory, bytes, operation.offset);
        break;
      case DiskOperation::Kind::kSync:
        io_uring_prep_fsync(entry, operation.fd, IORING_FSYNC_DATASYNC);
        break;
      case DiskOperation::Kind::kPunch:
        io_uring_prep_fallocate(entry, operation.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(operation.offset),
                                static_cast<off_t>(operation.bytes));
        break;
    }
    io_uring_sqe_set_data(entry, &operation);
  }

  // True: there may be more.
  bool TakeLocked(Done& done) {
    io_uring_cqe* entry = nullptr;
    while (!done.full()) {
      if (io_uring_peek_cqe(&ring_, &entry) != 0) return false;
      done.Add(*static_cast<DiskOperation*>(io_uring_cqe_get_data(entry)), entry->res);
      io_uring_cqe_seen(&ring_, entry);
    }
    return true;
  }

  void WakeThread() {
    const uint64_t one = 1;
    (void)!write(event_, &one, sizeof(one));
  }

  void Loop() {
    while (!stop_.load()) {
      uint64_t count = 0;
      (void)!read(event_, &count, sizeof(count));
      for (bool more = true; more;) {
        Done done;
        {
          const std::lock_guard guard(lock_);
          // The kernel may have been short of memory.
          if (io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
          more = TakeLocked(done);
        }
        done.Run();
      }
    }
  }

  UringDisk() = default;

  io_uring ring_ = {};
  bool open_ = false;
  int event_ = -1;
  std::mutex lock_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Disk> OpenUring(absl::Status* why) { return UringDisk::Open(why); }

}  // namespace verbena::volume
