// SPDX-License-Identifier: Apache-2.0
#include "verbs/completion.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transport/completion_queue.h"
#include "transport/log.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CompletionChannel::Create(
    Device* device) {
  const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake < 0) return provider::NoDescriptor("completion channel", errno);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) {
    close(wake);
    return provider::NoDescriptor("completion channel", errno);
  }
  return std::make_unique<CompletionChannel>(device, epoll, wake);
}

CompletionChannel::CompletionChannel(Device* device, int epoll, int wake)
    : device_(device), epoll_(epoll), wake_(wake) {
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  device_->children().Add();
}

CompletionChannel::~CompletionChannel() {
  close(epoll_);
  close(wake_);
  device_->children().Remove();
}

void CompletionChannel::Join(CompletionQueue* cq) {
  children_.Add();
  epoll_event event{.events = EPOLLIN, .data = {.ptr = cq}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, cq->event_fd(), &event);
}

void CompletionChannel::Mute(CompletionQueue* cq) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, cq->event_fd(), nullptr);
}

void CompletionChannel::Leave(CompletionQueue* cq) {
  {
    const std::lock_guard lock(mutex_);
    epoll_ctl(epoll_, EPOLL_CTL_DEL, cq->event_fd(), nullptr);
    std::erase(waiting_, cq);
  }
  children_.Remove();
}

void CompletionChannel::Add(CompletionQueue* cq, int events) {
  const std::lock_guard lock(mutex_);
  waiting_.insert(waiting_.end(), static_cast<size_t>(events), cq);
  (void)eventfd_write(wake_, 1);
}

bool CompletionChannel::TryNext(CqEvent* event) {
  const std::lock_guard lock(mutex_);
  epoll_event ready[16];
  const int n = waiting_.empty() ? epoll_wait(epoll_, ready, 16, 0) : 0;
  for (int i = 0; i < n; ++i) {
    auto* cq = static_cast<CompletionQueue*>(ready[i].data.ptr);
    if (cq == nullptr) continue;
    waiting_.insert(waiting_.end(), static_cast<size_t>(cq->TakeEvents()), cq);
  }
  const bool any = !waiting_.empty();
  if (any) {
    event->context = waiting_.front()->context();
    waiting_.pop_front();
    ++taken_;
  }
  eventfd_t count;
  if (waiting_.empty()) {
    (void)eventfd_read(wake_, &count);
  } else {
    (void)eventfd_write(wake_, 1);
  }
  return any;
}

// What waits in the kernel is not known until it is taken.
ChannelCounters CompletionChannel::counters() const {
  const std::lock_guard lock(mutex_);
  return {.events = taken_ + waiting_.size(), .taken = taken_};
}

// An event that somebody else took from a queue's own channel comes by wake_.
bool CompletionChannel::Await(absl::Duration timeout) {
  pollfd entry{.fd = epoll_, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, Milliseconds(timeout)) != 0;  // a signal: it may look for nothing
}

absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CompletionQueue::Create(
    Device* device, const CqOptions& options) {
  if (absl::Status s =
          provider::CheckCqEntries("completion queue", options.entries,
                                   device->attributes().max_completions, device->name());
      !s.ok()) {
    return s;
  }
  const auto channel = provider::ChannelOf<CompletionChannel>(options, device);
  if (!channel.ok()) return channel.status();
  ibv_comp_channel* events = Lib().create_comp_channel(device->context());
  if (events == nullptr) return provider::NoDescriptor("completion queue", errno);
  std::unique_ptr<CompletionQueue> cq =
      device->iwarp() ? std::make_unique<IwarpCompletionQueue>(device, options, *channel, events)
                      : std::make_unique<CompletionQueue>(device, options, *channel, events);
  if (cq->cq() != nullptr) return cq;
  return device->Refused(
      errno, absl::StrCat("create completion queue of ", options.entries, " entries"),
      Resource::kCompletionQueue, "Ask for fewer entries, or close queues that are not needed.");
}

CompletionQueue::CompletionQueue(Device* device, const CqOptions& options,
                                 CompletionChannel* channel, ibv_comp_channel* events)
    : device_(device), context_(options.context), channel_(channel), events_(events) {
  for (std::atomic<Ledger*>& latest : latest_) latest = device_->ledgers().nobody();
  device_->children().Add();
  cq_ = Lib().create_cq(device_->context(),
                        static_cast<int>(options.entries * device_->completions_a_request()), this,
                        events_, 0);
  if (cq_ == nullptr) return;
  fcntl(events_->fd, F_SETFL, fcntl(events_->fd, F_GETFL) | O_NONBLOCK);
  device_->service().AddChannel(events_->fd);
  if (channel_ != nullptr) channel_->Join(this);
}

CompletionQueue::~CompletionQueue() {
  const int error = errno;  // Create reports it
  Lib().destroy_comp_channel(events_);
  device_->children().Remove();
  errno = error;
}

absl::Status CompletionQueue::Close() {
  if (absl::Status s = children_.CheckNone("completion queue"); !s.ok()) return s;
  Absorb();  // ibv_destroy_cq(3) waits until all are acknowledged
  if (const int error = Lib().destroy_cq(cq_); error != 0) {
    return ErrnoStatus(error, "close completion queue", "Is a queue pair still using it?");
  }
  if (channel_ != nullptr) channel_->Leave(this);
  device_->service().RemoveChannel(events_->fd);
  device_->Forget(this);
  return absl::OkStatus();
}

absl::Status CompletionQueue::RequestNotify(Notify kind) {
  if (absl::Status s = provider::CheckNotify(channel_); !s.ok()) return s;
  // An event of a former arming that nobody has taken yet must count for that one.
  Absorb();
  const std::lock_guard lock(mutex_);
  const bool any = kind == Notify::kAny || (asked_ && asked_for_ == Notify::kAny);
  asked_ = true;
  asked_for_ = any ? Notify::kAny : Notify::kSolicited;
  if (const int error = ibv_req_notify_cq(cq_, any ? 0 : 1); error != 0) {
    return ErrnoStatus(error, "request notify", "Is the device still there?");
  }
  return absl::OkStatus();
}

int CompletionQueue::TakeEvents() {
  const std::lock_guard lock(mutex_);
  int wanted = 0;
  ibv_cq* cq = nullptr;
  void* self = nullptr;
  while (Lib().get_cq_event(events_, &cq, &self) == 0) {
    Lib().ack_cq_events(cq, 1);
    if (asked_) ++wanted;
    asked_ = false;
  }
  // The descriptor of a device that was pulled out stays readable for ever.
  if (errno != EAGAIN && errno != EINTR && !std::exchange(mute_, true)) {
    if (channel_ != nullptr) channel_->Mute(this);
    device_->service().RemoveChannel(events_->fd);
  }
  notifications_.fetch_add(static_cast<uint64_t>(wanted), std::memory_order_relaxed);
  return wanted;
}

void CompletionQueue::Absorb() {
  const int wanted = TakeEvents();
  if (wanted > 0 && channel_ != nullptr) channel_->Add(this, wanted);
}

void CompletionQueue::ArmForWaiters() {
  const std::lock_guard lock(mutex_);
  // Arming for any would make an event for the application that asked for solicited ones only.
  if (asked_ && asked_for_ == Notify::kSolicited) return;
  ibv_req_notify_cq(cq_, 0);
}

bool CompletionQueue::Await(absl::Duration timeout) {
  // While the device is armed for solicited completions only, nothing tells of others.
  constexpr absl::Duration kLook = absl::Milliseconds(1);
  const absl::Duration deadline =
      timeout == absl::InfiniteDuration() ? timeout : SteadyNow() + timeout;
  const auto ready = [this] {
    Absorb();
    ArmForWaiters();
    return Pull();
  };
  for (;;) {
    absl::Duration left = deadline == absl::InfiniteDuration() ? deadline : deadline - SteadyNow();
    bool look_again = false;
    {
      const std::lock_guard lock(mutex_);
      look_again = asked_ && asked_for_ == Notify::kSolicited;
    }
    if (device_->service().Await(ready, look_again ? std::min(left, kLook) : left, events_->fd)) {
      // Another waiter's event may have been taken here.
      device_->service().Changed();
      return true;
    }
    if (!look_again || left <= absl::ZeroDuration()) return false;
  }
}

bool CompletionQueue::Pull() {
  const std::lock_guard lock(mutex_);
  PullLocked();
  if (wants_attention()) Attend();
  return !stash_.empty();
}

// Against the order of locks, so it must not wait.
bool CompletionQueue::TryPull() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (lock.owns_lock()) PullLocked();
  if (lock.owns_lock() && wants_attention()) Attend();
  return lock.owns_lock();
}

void CompletionQueue::PullLocked() {
  beside_.fetch_or(kPulling, std::memory_order_seq_cst);
  WorkCompletion taken[kPollBatch];
  uint64_t names[kPollBatch];
  bool more = true;
  // No more than the application made it for: the rest waits in the device.
  while (more && stash_.size() < entries()) {
    const size_t n = PollDevice(taken, For::kStash, names, &more);
    Stash({taken, n}, names);
  }
  beside_.fetch_and(~kPulling, std::memory_order_seq_cst);
}

// What the device has flushed comes first, also of a queue pair that goes to ERR meanwhile.
void CompletionQueue::Attend() {
  // The service's own thread holds its mutex whenever it polls.
  std::unique_lock lock(device_->service().mutex(), std::defer_lock);
  do {
    if (lock.owns_lock()) lock.unlock();
    beside_.fetch_and(~kAttention, std::memory_order_seq_cst);
    PullLocked();
    if (!device_->service().on_its_thread()) lock.lock();
  } while ((beside_.load(std::memory_order_acquire) & kLost) != 0);
  for (QueuePair* qp : queue_pairs_) qp->OnPoll(this);
}

void CompletionQueue::StashOne(uint64_t name, const WorkCompletion& completion) {
  Stash({&completion, 1}, &name);
  completions_.fetch_add(1, std::memory_order_relaxed);
}

void CompletionQueue::FlushNow() {
  FlushSoon();
  int wanted = 0;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(asked_, false)) wanted = 1;
    notifications_.fetch_add(static_cast<uint64_t>(wanted), std::memory_order_relaxed);
  }
  if (wanted > 0 && channel_ != nullptr) channel_->Add(this, wanted);
  device_->service().Changed();
}

void CompletionQueue::Stash(std::span<const WorkCompletion> completions, const uint64_t* names) {
  for (size_t i = 0; i < completions.size(); ++i) stash_.push_back({names[i], completions[i]});
  StashChanged();
}

void CompletionQueue::StashChanged() {
  if (stash_.empty()) {
    beside_.fetch_and(~kStashed, std::memory_order_release);
  } else {
    beside_.fetch_or(kStashed, std::memory_order_release);
  }
}

size_t CompletionQueue::UnstashLocked(std::span<WorkCompletion> out) {
  size_t n = 0;
  while (n < out.size() && !stash_.empty()) {
    const Stashed& first = stash_.front();
    if (Ledger* ledger = device_->ledgers().Find(first.name); ledger != nullptr) {
      out[n++] = first.completion;
      if (ledger->kind() != Ledger::Kind::kShared) ledger->Retire(first.name);
    }
    stash_.pop_front();
  }
  StashChanged();
  return n;
}

size_t CompletionQueue::Unstash(std::span<WorkCompletion> out) {
  const std::lock_guard lock(mutex_);
  if (wants_attention()) Attend();
  return UnstashLocked(out);
}

size_t CompletionQueue::StashAndUnstash(std::span<WorkCompletion> out, size_t count,
                                        const uint64_t* names) {
  const std::lock_guard lock(mutex_);
  Stash(out.first(count), names);
  std::stable_sort(stash_.begin(), stash_.end(), [this](const Stashed& a, const Stashed& b) {
    return PostedBefore(device_->ledgers(), a.name, b.name);
  });
  return UnstashLocked(out);
}

void CompletionQueue::DropVoid() {
  const std::lock_guard lock(mutex_);
  std::erase_if(stash_, [this](const Stashed& entry) {
    return device_->ledgers().Find(entry.name) == nullptr;
  });
  StashChanged();
}

void CompletionQueue::DropShared(uint32_t qp_number) {
  const std::lock_guard lock(mutex_);
  PullLocked();
  std::erase_if(stash_, [&](const Stashed& entry) {
    const Ledger* ledger = device_->ledgers().Find(entry.name);
    return ledger != nullptr && ledger->kind() == Ledger::Kind::kShared &&
           entry.completion.qp_number == qp_number;
  });
  StashChanged();
}

absl::Status CompletionQueue::Resize(uint32_t entries) {
  if (absl::Status s =
          provider::CheckCqEntries("resize completion queue", entries,
                                   device_->attributes().max_completions, device_->name());
      !s.ok()) {
    return s;
  }
  Pull();  // what waits in the device counts as well, and not every driver looks
  const std::lock_guard lock(mutex_);
  const int error =
      stash_.size() > entries ? EINVAL : Lib().resize_cq(cq_, static_cast<int>(entries));
  if (error == 0) return absl::OkStatus();
  if (error == EINVAL) return provider::MoreWaitsThan(entries);
  return ErrnoStatus(error, absl::StrCat("resize completion queue to ", entries, " entries"),
                     "Make a new queue of that size instead.");
}

CqCounters CompletionQueue::counters() const {
  const_cast<CompletionQueue*>(this)->Absorb();
  CqCounters c;
  const uint64_t single = single_polls_.load(std::memory_order_relaxed);
  c.completions = single + completions_.load(std::memory_order_relaxed);
  c.empty_polls = empty_polls_.load(std::memory_order_relaxed);
  c.polls = c.empty_polls + single + full_polls_.load(std::memory_order_relaxed);
  c.notifications = notifications_.load(std::memory_order_relaxed);
  c.overflows = overflows_.load(std::memory_order_relaxed);
  return c;
}

void CompletionQueue::Join(QueuePair* qp) {
  queue_pairs_.insert(qp);
  LookForDatagrams();
}

void CompletionQueue::Leave(QueuePair* qp) {
  queue_pairs_.erase(qp);
  LookForDatagrams();
}

// Places of a shared queue are not marked as those of a queue pair's own are (Ledger::kOdd): they
// serve streams as well, by posts that know no difference.
void CompletionQueue::LookForDatagrams() {
  const bool any =
      std::any_of(queue_pairs_.begin(), queue_pairs_.end(),
                  [this](const QueuePair* qp) { return qp->ReceivesSharedDatagrams(this); });
  if (any) {
    beside_.fetch_or(kSharedDatagrams, std::memory_order_seq_cst);
  } else {
    beside_.fetch_and(~kSharedDatagrams, std::memory_order_seq_cst);
  }
}

// Overrun (IBTA 11.6.3.2, ibv_get_async_event(3) IBV_EVENT_CQ_ERR): its queue pairs cannot complete
// anything any more, so they end.
void CompletionQueue::OnOverflow() {
  overflows_.fetch_add(1, std::memory_order_relaxed);
  Broken(absl::ResourceExhaustedError(
      absl::StrCat("a completion queue of ", cq_->cqe,
                   " entries overflowed; make it as large as all that may complete on it")));
}

void CompletionQueue::Broken(const absl::Status& why) {
  if (broken_.exchange(true, std::memory_order_relaxed)) return;
  Event e;
  e.type = EventType::kCqError;
  e.context = context_;
  e.status = why;
  device_->Push(this, std::move(e));
  for (QueuePair* qp : queue_pairs_) qp->QueueBroken(why);
}

// ibv_poll_cq(3): below zero is a failure, of the driver or the device, and no empty queue.
void CompletionQueue::PollFailed(int answer) {
  if (broken_.load(std::memory_order_relaxed)) return;
  const absl::Status why = absl::UnavailableError(absl::StrCat(
      "poll completion queue on device ", device_->name(), ": the driver failed (ibv_poll_cq said ",
      answer, "). Close it and its queue pairs, and connect again."));
  VERBENA_LOG(kWarn, "verbs", std::string(why.message()));
  // The service's own thread holds its mutex whenever it polls.
  std::unique_lock lock(device_->service().mutex(), std::defer_lock);
  if (!device_->service().on_its_thread()) lock.lock();
  Broken(why);
}

}  // namespace verbena::verbs
