// SPDX-License-Identifier: Apache-2.0
#include "fallback/meeting.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fallback/device.h"
#include "fallback/listener.h"
#include "fallback/queue_pair.h"

namespace verbena::fallback {
namespace {

constexpr Nanos kPatience = 30'000'000'000;  // for a queue pair whose application is late
constexpr size_t kMaxStrangers = 64;         // besides one caller for each queue pair

std::string Key(const engine::Place& place) {
  return {reinterpret_cast<const char*>(place.data()), place.size()};
}

template <typename Queue>
auto Find(Queue& waiting, const engine::Place& place, const engine::Token& call) {
  return std::find_if(waiting.begin(), waiting.end(), [&](const Caller& each) {
    return each.call.place == place && each.call.call == call;
  });
}

}  // namespace

Meeting::Meeting(Device* device) : device_(device) {}

Meeting::~Meeting() { Close(); }

absl::StatusOr<uint16_t> Meeting::Open() {
  const std::lock_guard lock(mutex_);
  if (listeners_.empty()) return AddListener();
  return device_->hub().streams().Local(listeners_.front()->socket()).port();
}

absl::StatusOr<uint16_t> Meeting::OpenAnother() {
  const std::lock_guard lock(mutex_);
  return AddListener();
}

absl::StatusOr<uint16_t> Meeting::AddListener() {
  absl::StatusOr<std::unique_ptr<Listener>> made = Listener::CreateHidden(device_, this);
  if (!made.ok()) return made.status();
  if (listeners_.empty()) device_->hub().Add(this);
  listeners_.push_back(*std::move(made));
  return device_->hub().streams().Local(listeners_.back()->socket()).port();
}

void Meeting::Close() {
  std::vector<std::unique_ptr<Listener>> listeners;
  {
    const std::lock_guard lock(mutex_);
    listeners.swap(listeners_);
  }
  if (listeners.empty()) return;
  for (auto& each : listeners) (void)each->Close();  // without the mutex: it waits for Arrived
  device_->hub().Remove(this);
  const std::lock_guard lock(mutex_);
  for (Caller& each : waiting_) Refuse(each, "the context was closed");
  waiting_.clear();
}

void Meeting::Expect(const engine::Place& place, QueuePair* qp) {
  const std::lock_guard lock(mutex_);
  expected_[Key(place)] = {qp, std::nullopt};
}

void Meeting::Forget(const engine::Place& place) {
  const std::lock_guard lock(mutex_);
  expected_.erase(Key(place));
  std::erase_if(waiting_, [&](Caller& each) {
    if (each.call.place != place) return false;
    Refuse(each, "the address is void: its queue pair was reset or closed");
    return true;
  });
}

std::optional<Caller> Meeting::Take(const engine::Place& place, const engine::Token& call) {
  const std::lock_guard lock(mutex_);
  const auto it = Find(waiting_, place, call);
  if (it == waiting_.end()) return std::nullopt;
  Caller caller = std::move(*it);
  waiting_.erase(it);
  return caller;
}

bool Meeting::Has(const engine::Place& place, const engine::Token& call) const {
  const std::lock_guard lock(mutex_);
  return Find(waiting_, place, call) != waiting_.end();
}

void Meeting::Taken(const engine::Place& place, const Nonce& nonce) {
  const std::lock_guard lock(mutex_);
  expected_[Key(place)].taken = nonce;
  std::erase_if(waiting_, [&](Caller& each) {
    if (each.call.place != place) return false;
    RefuseTaken(each, nonce);
    return true;
  });
}

void Meeting::Arrived(io::Socket socket, engine::PeerRequest request) {
  Caller caller{socket, std::move(request), {}, device_->hub().Now() + kPatience};
  const std::lock_guard lock(mutex_);
  const std::optional<engine::Call> call =
      caller.request.out_of_band ? engine::DecodeCall(caller.request.private_data) : std::nullopt;
  if (!call) return Refuse(caller, "this port is for out-of-band connections only");
  caller.call = *call;
  const auto expected = expected_.find(Key(call->place));
  if (expected == expected_.end()) {
    return Refuse(caller, "no queue pair here has that address, or no longer");
  }
  if (expected->second.taken) return RefuseTaken(caller, *expected->second.taken);
  // Who calls again has given the former call up.
  if (const auto it = Find(waiting_, call->place, call->call); it != waiting_.end()) {
    device_->hub().streams().Close(it->socket, true);
    waiting_.erase(it);
  }
  if (waiting_.size() >= expected_.size() + kMaxStrangers)
    return Refuse(caller, "too many callers wait here");
  waiting_.push_back(std::move(caller));
  device_->hub().SetDeadline(this, waiting_.front().until);
  expected->second.qp->Schedule();
}

void Meeting::OnDeadline() {
  const std::lock_guard lock(mutex_);
  const Nanos now = device_->hub().Now();
  while (!waiting_.empty() && waiting_.front().until <= now) {
    Refuse(waiting_.front(), "the application did not connect within 30s");
    waiting_.pop_front();
  }
  device_->hub().SetDeadline(this, waiting_.empty() ? io::kNever : waiting_.front().until);
}

void Meeting::Refuse(Caller& caller, const std::string& text, const std::string& proof) {
  VERBENA_LOG_LIMITED(refusals_, kWarn, "connect", "out of band: refused ",
                      device_->hub().streams().Peer(caller.socket).ToString(), ": ", text);
  device_->counts().rejects.fetch_add(1);
  device_->hub().Linger(std::exchange(caller.socket, io::kNoSocket),
                        engine::EncodeReject(caller.request, proof + text));
}

void Meeting::RefuseTaken(Caller& caller, const Nonce& nonce) {
  Refuse(caller, "its queue pair is connected to another one",
         engine::Text(engine::AnswerTo(nonce, caller.call.call)));
}

}  // namespace verbena::fallback
