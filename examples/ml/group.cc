// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/group.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ml {

using verbena::Access;

namespace {

constexpr absl::Duration kFarewell = absl::Seconds(1);  // for goodbyes to arrive

const Circle kAlone;

absl::Status Invalid(const std::string& why) { return absl::InvalidArgumentError(why); }

bool Overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.data() < b.data() + b.size() && b.data() < a.data() + a.size();
}

absl::Status CheckReduce(Dtype dtype, const Source& in, const Target& out) {
  const size_t bytes = out.bytes.size();
  if (in.bytes.size() != bytes) return Invalid("what is added up and the sum have two lengths");
  if (bytes % SizeOf(dtype) != 0) {
    return Invalid(absl::StrCat(bytes, " bytes are no whole number of ", NameOf(dtype)));
  }
  for (const std::byte* at : {in.bytes.data(), static_cast<const std::byte*>(out.bytes.data())}) {
    if (reinterpret_cast<uintptr_t>(at) % SizeOf(dtype) != 0) {
      return Invalid(absl::StrCat("memory is not aligned for ", NameOf(dtype)));
    }
  }
  if (in.bytes.data() != out.bytes.data() && Overlap(in.bytes, out.bytes)) {
    return Invalid("what is added up and the sum overlap, and are not the same");
  }
  return absl::OkStatus();
}

absl::Status CheckGather(const Source& in, const Target& out, int rank, int size) {
  const size_t block = in.bytes.size();
  if (out.bytes.size() != block * static_cast<size_t>(size)) {
    return Invalid(absl::StrCat("what ", size, " ranks gather is ", size, " times as long as what ",
                                "each has, not ", out.bytes.size(), " for ", block, " bytes"));
  }
  if (in.bytes.data() != out.bytes.data() + static_cast<size_t>(rank) * block &&
      Overlap(in.bytes, out.bytes)) {
    return Invalid("what is gathered and where it goes overlap, and not at the rank's own block");
  }
  return absl::OkStatus();
}

std::span<std::byte> Writable(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

int64_t NowNs() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

}  // namespace

Group::Group(const GroupOptions& options) : options_(options) {}

Group::~Group() {
  if (operation_ != nullptr) {
    Fail(absl::CancelledError("the group was left in the middle of an operation")).IgnoreError();
  }
  for (const auto& link : circle_.links) {
    if (link != nullptr) link->Goodbye();
  }
  const absl::Time until = absl::Now() + kFarewell;
  for (const auto& link : circle_.links) {
    // Not OK: the peer is gone already, and misses nothing.
    if (link != nullptr) link->qp().Drain(until - absl::Now()).IgnoreError();
  }
  End();
}

absl::StatusOr<verbena::MemoryRegion> Group::Register(std::span<const std::byte> memory,
                                                      bool writable) {
  ++counters_.registrations;
  return pd_.Register(Writable(memory),
                      writable ? Access::kLocalWrite | Access::kRemoteWrite : Access::kLocalRead);
}

absl::Status Group::Ready() const {
  if (!failure_.ok()) return failure_;
  if (operation_ != nullptr) {
    return absl::FailedPreconditionError("another operation of this group is running");
  }
  return absl::OkStatus();
}

absl::StatusOr<Place> Group::PlaceOf(std::span<std::byte> bytes,
                                     const verbena::MemoryRegion* region, Access access,
                                     verbena::MemoryRegion* own) {
  if (region == nullptr) {
    auto made = pd_.Register(bytes, access);
    if (!made.ok()) return made.status();
    *own = *std::move(made);
    ++counters_.registrations;
    region = own;
  }
  return Place{bytes, region};
}

absl::Status Group::Begin(absl::StatusOr<std::unique_ptr<Operation>> operation) {
  if (!operation.ok()) return operation.status();
  operation_ = *std::move(operation);
  const absl::Duration most = std::min(options_.deadline, absl::Hours(24 * 365));
  deadline_ns_ = NowNs() + absl::ToInt64Nanoseconds(most);
  ++counters_.operations;
  return absl::OkStatus();
}

absl::Status Group::BeginAllReduce(Dtype dtype, const Source& in, const Target& out) {
  if (auto ready = Ready(); !ready.ok()) return ready;
  if (auto right = CheckReduce(dtype, in, out); !right.ok()) return right;
  const size_t bytes = out.bytes.size();
  const bool in_place = in.bytes.data() == out.bytes.data();
  const bool few = bytes <= kSmallBytes || circle_.size == 1;
  if (few && !in_place && bytes > 0) {
    std::memcpy(out.bytes.data(), in.bytes.data(), bytes);
    counters_.bytes_copied += bytes;
  }
  if (bytes == 0) return Begin(SmallAllReduce(kAlone, 0, dtype, out.bytes));  // nobody is asked
  const uint8_t number = ++number_;
  if (few) return Begin(SmallAllReduce(circle_, number, dtype, out.bytes));
  auto to =
      PlaceOf(out.bytes, out.region, Access::kLocalWrite | Access::kRemoteWrite, &out_region_);
  if (!to.ok()) return to.status();
  auto from =
      in_place ? to : PlaceOf(Writable(in.bytes), in.region, Access::kLocalRead, &in_region_);
  if (!from.ok()) return from.status();
  return Begin(RingAllReduce(circle_, number, dtype, *from, *to));
}

absl::Status Group::BeginAllGather(const Source& in, const Target& out) {
  if (auto ready = Ready(); !ready.ok()) return ready;
  if (auto right = CheckGather(in, out, circle_.rank, circle_.size); !right.ok()) return right;
  const size_t block = in.bytes.size();
  std::byte* own = out.bytes.data() + static_cast<size_t>(circle_.rank) * block;
  if (block > 0 && own != in.bytes.data()) {
    std::memcpy(own, in.bytes.data(), block);
    counters_.bytes_copied += block;
  }
  if (block == 0) return Begin(SmallAllGather(kAlone, 0, out.bytes));
  const uint8_t number = ++number_;
  if (block <= kSmallBytes || circle_.size == 1) {
    return Begin(SmallAllGather(circle_, number, out.bytes));
  }
  auto to =
      PlaceOf(out.bytes, out.region, Access::kLocalWrite | Access::kRemoteWrite, &out_region_);
  if (!to.ok()) return to.status();
  return Begin(RingAllGather(circle_, number, *to));
}

absl::Status Group::AllReduce(Dtype dtype, const Source& in, const Target& out) {
  if (auto begun = BeginAllReduce(dtype, in, out); !begun.ok()) return begun;
  return Finish();
}

absl::Status Group::AllGather(const Source& in, const Target& out) {
  if (auto begun = BeginAllGather(in, out); !begun.ok()) return begun;
  return Finish();
}

absl::Status Group::Barrier() {
  std::array<std::byte, 1> nothing{};
  return AllReduce(Dtype::kUint8, {nothing}, {nothing});
}

size_t Group::Poll() {
  std::array<verbena::WorkCompletion, 64> done;
  const size_t count = cq_.Poll(done);
  for (const verbena::WorkCompletion& wc : std::span(done).first(count)) {
    const auto peer = static_cast<uint32_t>(wc.id);
    Link& link = *circle_.links[peer];
    const bool sent = (wc.id & Link::kSendBit) != 0;
    absl::Status status;
    if (!wc.ok()) {
      // Of a peer that said goodbye nobody expects anything more.
      if (link.left() && (!sent || (wc.id & Link::kCourtesyBit) != 0)) continue;
      const absl::Status cause = link.qp().cause();
      status = absl::UnavailableError(absl::StrCat(
          "rank ", peer, " is gone: ", cause.ok() ? "it disconnected" : cause.message()));
    } else if (sent) {
      link.OnSent();
    } else {
      status = link.OnReceive(wc);
    }
    if (!status.ok() && broken_.ok()) broken_ = status;
  }
  return count;
}

absl::StatusOr<bool> Group::Step() {
  moved_ = circle_.size > 1 && Poll() > 0;
  if (!broken_.ok()) return Fail(broken_);
  return Move();
}

absl::StatusOr<bool> Group::Move() {
  auto over = operation_->Advance();
  if (!broken_.ok()) return Fail(broken_);
  if (!over.ok()) return Fail(over.status());
  if (*over) {
    operation_.reset();
    in_region_ = {};
    out_region_ = {};
    return true;
  }
  if (!moved_ && NowNs() > deadline_ns_) return Fail(OverTime());
  return false;
}

absl::Status Group::OverTime() const {
  const int peer = operation_->awaited();
  return absl::DeadlineExceededError(absl::StrCat(
      "nothing came from ", peer < 0 ? "the others" : absl::StrCat("rank ", peer), " for ",
      absl::FormatDuration(options_.deadline), "; it is dead, stopped, or in another operation"));
}

absl::Status Group::Finish() {
  const bool spins = options_.wait == Wait::kSpin;
  const int64_t spin_ns =
      options_.wait == Wait::kBlock ? 0 : absl::ToInt64Nanoseconds(options_.spin);
  // Without a poll first: that would find nothing and acknowledge what came last, when what is sent
  // now takes the acknowledgement along.
  moved_ = true;
  auto over = Move();
  for (int64_t quiet_since = 0;; over = Step()) {
    if (!over.ok() || *over) return over.status();
    if (moved_) {
      quiet_since = 0;
      continue;
    }
    if (spins) continue;
    const int64_t now = NowNs();
    if (quiet_since == 0) quiet_since = now;
    if (now - quiet_since < spin_ns) continue;
    if (auto slept = Sleep(); !slept.ok() || operation_ == nullptr) return slept;
    quiet_since = 0;
  }
}

absl::Status Group::Sleep() {
  if (auto armed = cq_.RequestNotify(); !armed.ok()) return Fail(armed);
  const auto over = Step();  // what came before arming makes no event
  if (!over.ok()) return over.status();
  if (*over || moved_) return absl::OkStatus();
  const auto woken = channel_.Next(std::max(time_left(), absl::ZeroDuration()));
  if (woken.ok() || absl::IsDeadlineExceeded(woken.status())) return absl::OkStatus();
  return Fail(woken.status());
}

absl::StatusOr<bool> Group::Advance() {
  if (!failure_.ok()) return failure_;
  if (operation_ == nullptr) return absl::FailedPreconditionError("no operation was begun");
  for (verbena::CqEvent event; channel_.TryNext(&event);) {
  }
  do {
    if (auto armed = cq_.RequestNotify(); !armed.ok()) return Fail(armed);
    auto over = Step();
    if (!over.ok() || *over) return over;
  } while (moved_);
  return false;
}

absl::Duration Group::time_left() const { return absl::Nanoseconds(deadline_ns_ - NowNs()); }

GroupCounters Group::counters() const {
  GroupCounters counters = counters_;
  for (const auto& link : circle_.links) {
    if (link == nullptr) continue;
    counters.messages += link->counters().messages;
    counters.bytes_sent += link->counters().bytes;
    counters.bytes_copied += link->counters().copied;
  }
  return counters;
}

// The others find their connections to this rank ended, and end in turn: nobody is left waiting.
absl::Status Group::Fail(absl::Status why) {
  if (failure_.ok()) {
    failure_ = std::move(why);
    End();
  }
  return failure_;
}

// When a queue pair is closed nobody touches the memory of its requests any more.
void Group::End() {
  counters_ = counters();
  operation_.reset();
  circle_.links.clear();
  in_region_ = {};
  out_region_ = {};
}

}  // namespace ml
