// SPDX-License-Identifier: Apache-2.0
#include "dropin/process.h"

#include <pthread.h>
#include <sys/resource.h>

#include <cstdlib>

#include "dropin/cm_state.h"
#include "dropin/completion.h"
#include "dropin/connection_manager.h"
#include "dropin/context.h"
#include "dropin/errors.h"
#include "dropin/queue_pair.h"
#include "dropin/shared_receive_queue.h"
#include "fallback/provider.h"
#include "transport/log.h"

namespace verbena::dropin {
namespace {

std::mutex opening;
Process* current = nullptr;  // never destroyed: its threads run until the process ends

// Programs for devices do not count on queue pairs for descriptors, of which each is one here.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Process* Process::Get() {
  std::lock_guard lock(opening);
  if (current != nullptr) return current;
  RaiseDescriptorLimit();
  absl::StatusOr<std::unique_ptr<provider::Context>> context = fallback::Open("");
  if (!context.ok()) {
    VERBENA_LOG(kError, "dropin", std::string(context.status().message()));
    return Fail<Process>(ErrnoOf(context.status()));
  }
  current = new Process(*std::move(context));
  static const bool once [[maybe_unused]] = [] {
    pthread_atfork(BeforeFork, InParent, InChild);
    std::atexit(AtExit);
    return true;
  }();
  return current;
}

Process::Process(std::unique_ptr<provider::Context> context)
    : context_(std::move(context)),
      device_(*static_cast<fallback::Device*>(context_->devices().front())),
      numbers_([this] { return device_.meeting().OpenAnother(); }) {
  context_->SetHost(this);
}

void Process::Add(Context* context) {
  std::lock_guard lock(mutex_);
  contexts_.insert(context);
}

void Process::Remove(Context* context) {
  std::lock_guard lock(mutex_);
  contexts_.erase(context);
}

void Process::Add(QueuePair* qp) {
  std::lock_guard lock(mutex_);
  queue_pairs_[qp->number()] = qp;
}

void Process::Remove(QueuePair* qp) {
  std::lock_guard lock(mutex_);
  queue_pairs_.erase(qp->number());
}

QueuePair* Process::Find(uint32_t number) {
  std::lock_guard lock(mutex_);
  const auto it = queue_pairs_.find(number);
  return it == queue_pairs_.end() ? nullptr : it->second;
}

void Process::With(uint32_t number, absl::FunctionRef<void(QueuePair&)> f) {
  std::lock_guard lock(mutex_);
  const auto it = queue_pairs_.find(number);
  if (it != queue_pairs_.end()) f(*it->second);
}

// `event.context` is what the object was made with: ours.
void Process::Push(const void*, Event event) {
  switch (event.type) {
    case EventType::kCqError:
      return static_cast<CompletionQueue*>(event.context)->OnError();
    case EventType::kSrqLimitReached:
      return static_cast<SharedReceiveQueue*>(event.context)->OnLimit();
    default:
      return static_cast<QueuePair*>(event.context)->OnEvent(std::move(event));
  }
}

// A listener has a request. The provider may not be called from here.
void Process::Changed() { context_->SetTimer(absl::ZeroDuration()); }

void Process::OnTimer() { ConnectionManager::OnTimer(); }

// A child inherits no service thread, and shares sockets with its parent: it must not touch what it
// inherits. The locks are held over the fork, so that the child finds the lists whole.
void Process::BeforeFork() {
  opening.lock();
  if (current != nullptr) current->mutex_.lock();
}

void Process::InParent() {
  if (current != nullptr) current->mutex_.unlock();
  opening.unlock();
}

void Process::InChild() {
  if (current != nullptr) {
    for (Context* each : current->contexts_) each->Disable();
    current->inherited_ = true;
    current->mutex_.unlock();
    current = nullptr;
  }
  ManagerState::InChild();
  opening.unlock();
}

// What a program has taken is acknowledged, even if it ends at once: its peer may wait for that.
void Process::AtExit() {
  std::lock_guard lock(opening);
  if (current == nullptr) return;
  std::lock_guard objects(current->mutex_);
  for (const auto& [number, qp] : current->queue_pairs_) {
    if (qp->datagrams() == nullptr) qp->queue_pair().Finish();
  }
}

}  // namespace verbena::dropin
