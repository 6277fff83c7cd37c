// SPDX-License-Identifier: Apache-2.0
#include "verbs/service.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "transport/thread.h"
#include "verbs/errors.h"

namespace verbena::verbs {
namespace {

void Add(int epoll, int fd, uint32_t events, void* what) {
  epoll_event event{.events = events, .data = {.ptr = what}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

thread_local const Service* served_here = nullptr;  // by this thread

}  // namespace

absl::Duration SteadyNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

int Milliseconds(absl::Duration left) {
  if (left == absl::InfiniteDuration()) return -1;
  const int64_t ms = absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
  return static_cast<int>(std::clamp<int64_t>(ms, 0, 1 << 30));
}

absl::StatusOr<std::unique_ptr<Service>> Service::Create() {
  std::unique_ptr<Service> s(new Service);
  s->channel_ = Lib().create_event_channel();
  if (s->channel_ == nullptr) {
    return ErrnoStatus(errno, "rdma_cm: its event channel cannot be opened",
                       "Load the module rdma_ucm (`modprobe rdma_ucm`), and see that this process "
                       "may open /dev/infiniband/rdma_cm.");
  }
  s->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  s->channels_ = epoll_create1(EPOLL_CLOEXEC);
  s->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  s->changed_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (s->epoll_ < 0 || s->channels_ < 0 || s->wake_ < 0 || s->changed_ < 0) {
    return ErrnoStatus(EMFILE, "context: no descriptor is left for its service",
                       "Close some, or raise the limit: `ulimit -n 65536`, LimitNOFILE= in "
                       "systemd, `--ulimit nofile=65536` for a container.");
  }
  fcntl(s->channel_->fd, F_SETFL, fcntl(s->channel_->fd, F_GETFL) | O_NONBLOCK);
  Add(s->epoll_, s->channel_->fd, EPOLLIN, nullptr);
  Add(s->epoll_, s->wake_, EPOLLIN, nullptr);
  return s;
}

Service::~Service() {
  Stop();
  if (channel_ != nullptr) Lib().destroy_event_channel(channel_);
  for (int fd : {epoll_, wake_, changed_, channels_}) {
    if (fd >= 0) close(fd);
  }
}

absl::Status Service::Start() {
  const auto main = [](void* self) -> void* {
    static_cast<Service*>(self)->Run();
    return nullptr;
  };
  const absl::Status status = provider::StartThread("verbena-verbs", main, this, &thread_);
  started_ = status.ok();
  return status;
}

void Service::Stop() {
  if (!std::exchange(started_, false)) return;
  stopping_.store(true, std::memory_order_release);
  Wake();
  pthread_join(thread_, nullptr);
}

void Service::Wake() { (void)eventfd_write(wake_, 1); }

bool Service::on_its_thread() const { return served_here == this; }

void Service::Run() {
  served_here = this;
  epoll_event ready[16];
  while (!stopping_.load(std::memory_order_acquire)) {
    int patience = 0;
    {
      const std::lock_guard lock(mutex_);
      patience = Patience();
    }
    const int n = epoll_wait(epoll_, ready, 16, patience);
    wakeups_.fetch_add(1, std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      eventfd_t count;
      (void)eventfd_read(wake_, &count);
      TakeCmEvents();
      for (int i = 0; i < n; ++i) {
        if (ready[i].data.ptr != nullptr) static_cast<EventSource*>(ready[i].data.ptr)->OnEvents();
      }
      for (Attended* who : std::exchange(attended_, {})) who->OnAttention();
      MeetDeadlines();
    }
    Changed();
  }
}

void Service::TakeCmEvents() {
  rdma_cm_event* event = nullptr;
  while (Lib().get_cm_event(channel_, &event) == 0) {
    CmEvent copy;
    copy.type = event->event;
    copy.id = event->id;
    copy.status = event->status;
    const rdma_conn_param& parameters = event->param.conn;
    if (parameters.private_data != nullptr) {
      copy.private_data.assign(static_cast<const char*>(parameters.private_data),
                               parameters.private_data_len);
      const ibv_context* device = event->id->verbs;
      if (device != nullptr && device->device->transport_type == IBV_TRANSPORT_IWARP) {
        copy.confirmation = SplitConfirmation(&copy.private_data);
      }
    }
    copy.responder_resources = parameters.responder_resources;
    copy.initiator_depth = parameters.initiator_depth;
    // A new request's identifier has the context of the one that listens.
    auto* handler = static_cast<CmHandler*>(event->id->context);
    Lib().ack_cm_event(event);
    if (handler != nullptr) handler->OnCm(copy);
  }
}

int Service::Patience() {
  if (!attended_.empty()) return 0;
  absl::Duration first = absl::InfiniteDuration();
  for (const auto& [who, when] : deadlines_) first = std::min(first, when);
  return first == absl::InfiniteDuration()
             ? -1
             : Milliseconds(std::max(first - SteadyNow(), absl::ZeroDuration()));
}

void Service::MeetDeadlines() {
  const absl::Duration now = SteadyNow();
  std::vector<Attended*> due;
  for (const auto& [who, when] : deadlines_) {
    if (when <= now) due.push_back(who);
  }
  for (Attended* who : due) {
    if (deadlines_.erase(who) > 0) who->OnDeadline();
  }
}

void Service::Attend(Attended* who) {
  attended_.insert(who);
  Wake();
}

void Service::SetDeadline(Attended* who, absl::Duration from_now) {
  if (from_now == absl::InfiniteDuration()) {
    deadlines_.erase(who);
    return;
  }
  deadlines_[who] = SteadyNow() + from_now;
  Wake();
}

void Service::Forget(Attended* who) {
  attended_.erase(who);
  deadlines_.erase(who);
}

void Service::AddSource(EventSource* source) { Add(epoll_, source->event_fd(), EPOLLIN, source); }

void Service::RemoveSource(EventSource* source) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, source->event_fd(), nullptr);
}

void Service::AddChannel(int fd) { Add(channels_, fd, EPOLLIN | EPOLLET, nullptr); }

void Service::RemoveChannel(int fd) { epoll_ctl(channels_, EPOLL_CTL_DEL, fd, nullptr); }

void Service::Changed() {
  if (anybody_waits()) (void)eventfd_write(changed_, 1);
}

// Edge-triggered, in a set of its own: what others have not taken yet must not make this thread
// spin. The set is armed before `ready` is asked, so no change is missed.
bool Service::Await(absl::FunctionRef<bool()> ready, absl::Duration timeout, int fd) {
  if (ready()) return true;
  if (timeout <= absl::ZeroDuration()) return false;
  const absl::Duration deadline =
      timeout == absl::InfiniteDuration() ? timeout : SteadyNow() + timeout;
  const int set = epoll_create1(EPOLL_CLOEXEC);
  if (set >= 0) {
    Add(set, changed_, EPOLLIN | EPOLLET, nullptr);
    Add(set, fd >= 0 ? fd : channels_, EPOLLIN | EPOLLET, nullptr);
  }
  waiters_.fetch_add(1, std::memory_order_seq_cst);
  bool done = ready();
  while (!done) {
    const absl::Duration left =
        deadline == absl::InfiniteDuration() ? deadline : deadline - SteadyNow();
    if (left <= absl::ZeroDuration()) break;
    epoll_event event;
    if (set >= 0) {
      epoll_wait(set, &event, 1, Milliseconds(left));
    } else {
      usleep(1000);  // out of descriptors: slower, and still right
    }
    done = ready();
  }
  waiters_.fetch_sub(1, std::memory_order_seq_cst);
  if (set >= 0) close(set);
  return done;
}

}  // namespace verbena::verbs
