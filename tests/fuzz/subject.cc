// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/subject.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "tests/fuzz/input.h"

namespace verbena::fuzz {

using engine::kMaxSge;

namespace {

constexpr size_t kGap = 64;  // bytes on both sides of an area that are nobody's
constexpr size_t kSizes[kAreas] = {9000, 6000, 64, 2048, 512, 2048, 24576};
constexpr uint32_t kDomain = 3;
constexpr std::byte kSecret{0x80};
constexpr size_t kLongestSink = 6000;

size_t Total() {
  size_t total = kGap;
  for (const size_t size : kSizes) total += size + kGap;
  return total;
}

// Where an area begins; areas are multiples of 8.
size_t Begin(Area area) {
  size_t at = kGap;
  for (int i = 0; i < static_cast<int>(area); ++i) at += kSizes[i] + kGap;
  return at;
}

Access RightsOf(Area area) {
  switch (area) {
    case Area::kWritable:
      return Access::kLocalWrite | Access::kRemoteWrite;
    case Area::kReadable:
      return Access::kRemoteRead;
    case Area::kAtomic:
      return Access::kLocalWrite | Access::kRemoteAtomic;
    case Area::kPrivate:
      return Access::kLocalRead;
    case Area::kForeign:
      return engine::kEverything;
    case Area::kLendable:
      return Access::kLocalWrite | Access::kWindowBind;
    case Area::kSinks:
      return Access::kLocalWrite;
  }
  return Access::kLocalRead;
}

// What the array is at first: everywhere secrets, but for what may be read.
std::vector<uint64_t> AtFirst() {
  std::vector<uint64_t> words(Total() / 8);
  const auto bytes = std::as_writable_bytes(std::span(words));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7) | kSecret;
  const auto readable = bytes.subspan(Begin(Area::kReadable), kSizes[1]);
  for (std::byte& b : readable) b &= ~kSecret;
  return words;
}

engine::SideOptions Configure(const SubjectOptions& options, engine::ReceiveQueue* shared) {
  engine::SideOptions out;
  out.domain = kDomain;
  out.signal_all = options.signal_all;
  out.limits.max_send_wr = out.limits.max_receive_wr = 16;
  out.shared = shared;
  out.completions = 64;
  return out;
}

const std::vector<uint64_t> kAtFirst = AtFirst();

}  // namespace

Subject::Subject(const SubjectOptions& options)
    : options_(options),
      words_(kAtFirst),
      bytes_(std::as_writable_bytes(std::span(words_))),
      must_be_words_(kAtFirst),
      must_be_(std::as_writable_bytes(std::span(must_be_words_))),
      ready_frame_due_(options.session.initiator &&
                       options.session.ready_frame != engine::ReadyFrame::kNone) {
  static_assert(kGap % 8 == 0);
  if (options.shared_receives) shared_ = std::make_unique<engine::ReceiveQueue>(16, 4);
  side_ = std::make_unique<engine::Side>(Configure(options, shared_.get()));
  for (int i = 0; i < kAreas; ++i) {
    const auto area = static_cast<Area>(i);
    engine::Region& r = regions_[i];
    r.key = side_->keys.NewKey();
    r.domain = area == Area::kForeign ? kDomain + 1 : kDomain;
    r.access = RightsOf(area);
    r.host = bytes_.data() + Begin(area);
    r.first = at(area);
    r.length = kSizes[i];
    side_->keys.Add(&r);
  }
  window_.window = true;
  window_.domain = kDomain;
  Allow({Begin(Area::kWritable), kSizes[0]}, true);
  Allow({Begin(Area::kAtomic), kSizes[2]}, true);
  lent_ = {Begin(Area::kLendable) + kSizes[5] / 4, kSizes[5] / 2};
  qp().SetRetry(options.rnr_retry, 7, 18);
  qp().Connected(options.session);
}

Subject::~Subject() {
  side_->keys.Kill(&window_);
  for (engine::Region& r : regions_) side_->keys.Kill(&r);
}

uint64_t Subject::at(Area area) const {
  return reinterpret_cast<uint64_t>(bytes_.data() + Begin(area));
}

// The next part of the sinks, a gap behind the one before; the last come round to the first.
Subject::Span Subject::Sink(uint32_t size) {
  constexpr size_t kSpacing = 24;
  size = std::min<uint32_t>(size, kLongestSink);
  if (next_sink_ + size > kSizes[static_cast<int>(Area::kSinks)]) next_sink_ = 0;
  const Span span{Begin(Area::kSinks) + next_sink_, size};
  if (MayChange(span)) return {};  // still in use
  next_sink_ += size + kSpacing;
  return span;
}

bool Subject::MayChange(Span span) const {
  const auto behind = may_change_.lower_bound(span.begin + span.size);
  if (behind == may_change_.begin()) return false;
  const auto& [begin, size] = *std::prev(behind);
  return begin + size > span.begin;
}

void Subject::Allow(Span span, bool yes) {
  if (yes) {
    may_change_.emplace(span.begin, span.size);
  } else if (may_change_.erase(span.begin) != 0) {
    std::memcpy(must_be_.data() + span.begin, bytes_.data() + span.begin, span.size);
  }
}

void Subject::CheckMemory() const {
  size_t at = 0;
  const auto check = [&](size_t end) {
    FUZZ_CHECK(std::memcmp(bytes_.data() + at, must_be_.data() + at, end - at) == 0,
               "between byte " + std::to_string(at) + " and " + std::to_string(end));
  };
  for (const auto& [begin, size] : may_change_) {
    check(begin);
    at = begin + size;
  }
  check(bytes_.size());
}

void Subject::PostReceive(uint32_t length, bool two_pieces) {
  Posted posted{next_id_++};
  std::array<Sge, 2> list;
  size_t count = 0;
  for (const uint32_t part : {two_pieces ? length / 3 : length, length - length / 3}) {
    const Span span = Sink(part);
    if (span.size == 0) continue;
    Allow(span, true);
    posted.sinks.push_back(span);
    list[count++] = {reinterpret_cast<uint64_t>(bytes_.data() + span.begin),
                     static_cast<uint32_t>(span.size), key(Area::kSinks)};
    if (!two_pieces) break;
  }
  const ReceiveWr wr{.local = std::span<const Sge>(list.data(), count), .id = posted.id};
  bool wake = false;
  const PostResult result =
      shared_ ? shared_->Post({&wr, 1}, &wake) : qp().PostReceive({&wr, 1}, &wake);
  if (result.ok()) {
    receives_.posted.push_back(std::move(posted));
  } else {
    for (const Span& span : posted.sinks) Allow(span, false);
  }
  qp().FlushPosted();
  Poll();
}

void Subject::PostSend(Opcode opcode, uint32_t length, SendFlags flags, uint32_t pieces) {
  Posted posted{.id = next_id_++,
                .signaled = options_.signal_all || Has(flags, SendFlags::kSignaled),
                .counts = !engine::IsLocal(opcode),
                .lends = opcode == Opcode::kBindWindow};
  SendWr wr{.opcode = opcode, .remote = {0x1000, 7}, .id = posted.id, .flags = flags};
  wr.atomic = {1, 2};
  wr.immediate = wr.invalidate = window_.key;
  std::array<Sge, 4> list;
  size_t count = 0;
  if (engine::IsRead(opcode)) {
    const Span span = Sink(opcode == Opcode::kRead ? length : 8);
    if (span.size > 0) {
      Allow(span, true);
      posted.sinks.push_back(span);
      list[count++] = {reinterpret_cast<uint64_t>(bytes_.data() + span.begin),
                       static_cast<uint32_t>(span.size), key(Area::kSinks)};
    }
  } else if (!engine::IsLocal(opcode)) {
    length = std::min<uint32_t>(length, kSizes[3]);
    for (count = 0; count < std::clamp<size_t>(pieces, 1, list.size()); ++count) {
      list[count] = {at(Area::kPrivate), length, key(Area::kPrivate)};
    }
  }
  wr.local = std::span<const Sge>(list.data(), count);
  if (posted.lends) {
    wr.bind.window = reinterpret_cast<MemoryWindow*>(&window_);
    wr.bind.region = reinterpret_cast<MemoryRegion*>(&regions_[static_cast<int>(Area::kLendable)]);
    wr.bind.address = reinterpret_cast<uint64_t>(bytes_.data() + lent_.begin);
    wr.bind.length = lent_.size;
    wr.bind.access = Access::kRemoteWrite;
  }
  const bool accepted = qp().PostSend({&wr, 1}).ok();
  if (accepted && posted.lends) Allow(lent_, true);
  for (const Span& span : posted.sinks) {
    if (!accepted) Allow(span, false);
  }
  if (accepted) sends_.posted.push_back(std::move(posted));
  qp().FlushPosted();
  Poll();
}

void Subject::Kill(Area area) {
  qp().KeepUnsent();
  side_->keys.Kill(&regions_[static_cast<int>(area)]);
  const Span all{Begin(area), kSizes[static_cast<int>(area)]};
  if (area != Area::kSinks) Allow(all, false);
}

void Subject::Move(engine::Nanos by) {
  now_ += by;
  qp().Tick(now_);
}

void Subject::Completed(Queue* queue, const WorkCompletion& wc) {
  const bool ok = wc.status == WcStatus::kSuccess;
  FUZZ_CHECK(!(queue->failed && ok), queue->name);
  for (;;) {
    FUZZ_CHECK(!queue->posted.empty(), queue->name);
    const Posted posted = std::move(queue->posted.front());
    queue->posted.pop_front();
    if (posted.counts && (ok || posted.id != wc.id)) ++left_;
    for (const Span& span : posted.sinks) Allow(span, false);
    if (posted.id == wc.id) break;
    FUZZ_CHECK(!posted.signaled, queue->name);  // it went well, in silence
    FUZZ_CHECK(!queue->failed, queue->name);
  }
  if (!ok) queue->failed = true;
  if (ok && (wc.opcode == WcOpcode::kLocalInvalidate || wc.has_invalidated)) WindowDied();
  FUZZ_CHECK(left_ <= most_rsn_, std::to_string(left_) + " of " + std::to_string(most_rsn_));
}

// Unless a later bind is on its way, nobody may write to what was lent.
void Subject::WindowDied() {
  const bool again = std::any_of(sends_.posted.begin(), sends_.posted.end(),
                                 [](const Posted& posted) { return posted.lends; });
  if (!again) Allow(lent_, false);
}

void Subject::Poll() {
  WorkCompletion wc;
  while (side_->send_ring.Pop({&wc, 1}) == 1) Completed(&sends_, wc);
  while (side_->receive_ring.Pop({&wc, 1}) == 1) Completed(&receives_, wc);
}

void Subject::Feed(std::span<const std::byte> bytes, engine::Chunks* chunks) {
  while (!bytes.empty() && !ended_) {
    std::array<iovec, kMaxSge + 1> space;
    const int count = qp().ReceiveSpace(space.data(), static_cast<int>(space.size()));
    const size_t most = std::min(chunks->Next(), bytes.size());
    size_t done = 0;
    for (int i = 0; i < count && done < most; ++i) {
      const size_t n = std::min(space[i].iov_len, most - done);
      std::memcpy(space[i].iov_base, bytes.data() + done, n);
      done += n;
    }
    // A receive call with no room looks like the end of the stream.
    FUZZ_CHECK(done > 0);
    qp().Received(done, now_);
    bytes = bytes.subspan(done);
  }
  Poll();
}

void Subject::Drain(size_t most, bool idle) {
  for (;;) {
    const std::span<const iovec> vectors = qp().Gather(idle, now_);
    size_t n = 0;
    for (const iovec& v : vectors) {
      const auto* p = static_cast<const std::byte*>(v.iov_base);
      const size_t part = std::min(v.iov_len, most - n);
      sent_.insert(sent_.end(), p, p + part);
      n += part;
    }
    if (n == 0) break;
    most -= n;
    size_t whole = 0;
    for (const engine::Fpdu& fpdu : engine::ParseFpdus(sent_)) {
      CheckFpdu(fpdu);
      whole += fpdu.size;
    }
    sent_.erase(sent_.begin(), sent_.begin() + static_cast<ptrdiff_t>(whole));
    qp().Sent(n);
  }
  Poll();
}

void Subject::End(int error) {
  if (!ended_) qp().ReceiveEnded(error, now_);
  ended_ = true;
  Poll();
}

void Subject::Finish() {
  qp().Disconnect();
  Drain(SIZE_MAX, true);
  FUZZ_CHECK(qp().finished() || ended_ || !qp().HasUnsent());
  qp().FlushPosted();
  Poll();
  if (shared_) receives_.posted.clear();  // they outlive the queue pair
  FUZZ_CHECK(qp().state() == QpState::kErr);
  FUZZ_CHECK(receives_.posted.empty());
  for (const Posted& posted : sends_.posted) FUZZ_CHECK(!posted.signaled && !sends_.failed);
  CheckMemory();
}

void Subject::CheckFpdu(const engine::Fpdu& f) {
  FUZZ_CHECK(!last_words_, "something follows the Terminate or Bye");
  const bool tagged = wire::IsTagged(f.ddp);
  const wire::Fault fault = tagged ? wire::Invalid(f.tagged) : wire::Invalid(f.untagged);
  FUZZ_CHECK(!fault, fault ? fault.why : "");
  FUZZ_CHECK(f.crc_is_right || !options_.session.crc);
  const bool own = options_.session.features.has(wire::kAcknowledge);
  const wire::Opcode op = f.opcode();
  FUZZ_CHECK(own || op != wire::Opcode::kControl);
  const uint32_t most = options_.session.features.max_payload;
  if (op == wire::Opcode::kWrite || op == wire::Opcode::kReadResponse ||
      (op >= wire::Opcode::kSend && op <= wire::Opcode::kSendSolicitedInvalidate)) {
    const uint32_t room = wire::MaxPayloadForMss(options_.session.mss, wire::HeaderSize(f.ddp));
    FUZZ_CHECK(f.payload.size() <= (most != 0 ? most : room));
  }
  if (op == wire::Opcode::kReadResponse) {
    for (const std::byte b : f.payload) FUZZ_CHECK(b < kSecret, "memory that nobody lent");
  }
  CheckNumbers(f);
}

// What is asked, and how many requests are out.
void Subject::CheckNumbers(const engine::Fpdu& f) {
  const wire::Opcode op = f.opcode();
  if (op == wire::Opcode::kReadRequest) {
    const auto body = wire::Load<wire::ReadRequest>(f.payload.data());
    questions_.push_back({false, body.sink_stag, body.size, 0, sent_rsn_ + 1});
  } else if (op == wire::Opcode::kAtomicRequest) {
    const auto body = wire::Load<wire::AtomicRequest>(f.payload.data());
    questions_.push_back({true, body.request_id, 8, 0, sent_rsn_ + 1});
  } else if (op == wire::Opcode::kTerminate) {
    last_words_ = true;
  } else if (op == wire::Opcode::kControl) {
    const wire::Control c = wire::ReadControl(f.untagged);
    FUZZ_CHECK(!wire::Invalid(c, static_cast<uint32_t>(f.payload.size())));
    if (c.type == wire::ControlType::kBye) last_words_ = true;
    if (c.type == wire::ControlType::kRnrNak) refused_ = c.rsn;
    if (c.type == wire::ControlType::kResume) {
      sent_rsn_ = c.rsn - 1;
      while (!questions_.empty() && questions_.back().rsn >= c.rsn) questions_.pop_back();
    }
  }
  const bool request = op <= wire::Opcode::kAtomicRequest && op != wire::Opcode::kReadResponse &&
                       op != wire::Opcode::kTerminate;
  if (!request || (f.ddp & wire::kLast) == 0) return;
  if (std::exchange(ready_frame_due_, false)) return;
  if (op == wire::Opcode::kWrite && (f.rdmap & wire::kWithImmediate) != 0) return;
  most_rsn_ = std::max(most_rsn_, ++sent_rsn_);
}

}  // namespace verbena::fuzz
