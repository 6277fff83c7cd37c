// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/flow.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace verbena::sim {

namespace {

bool TakesReceive(Opcode op) {
  return op == Opcode::kSend || op == Opcode::kSendWithImm || op == Opcode::kSendWithInvalidate ||
         op == Opcode::kWriteWithImm;
}

}  // namespace

Flow::Flow(World* world, uint32_t end, Doom* doom, Pool* pool, Verdict* verdict)
    : world_(world),
      end_(end),
      own_(world->end(end)),
      peer_(world->peer(end)),
      doom_(doom),
      verdict_(verdict) {
  const Area& target = peer_.areas[kTarget];
  future_ = pool->Take(target.size);
  committed_ = pool->Take(target.size);
  work_ = pool->Take(target.size);
  expected_ = pool->Take(own_.areas[kSinks].size);
  FillPattern(target.host, ~uint64_t{end}, 0, target.size);
  std::memset(peer_.areas[kWords].host, 0, kWordCount * 8);
  Forget();
}

std::string Flow::Name(const Request& r) const {
  return absl::StrCat("end ", end_, "'s ", WcOpcodeName(CompletionOf(r.op)), " ", r.seq);
}

Request& Flow::Next() {
  Request& r = at(tail_);
  r = {};
  r.seq = tail_;
  r.slot = static_cast<uint32_t>(tail_ % own_.qp.config().limits.max_send_wr);
  r.pattern = (tail_ << 8 | end_) * 0x9e3779b97f4a7c15ull;
  return r;
}

void Flow::Posted(Request& r) {
  ++tail_;
  if (r.must_fail || r.may_fail != 0) ++doom_->offences;
  if (TakesReceive(r.op) && !r.must_fail) {
    Message& m = message(message_tail_++);
    m = {r.seq, r.pattern, r.length, static_cast<uint32_t>(r.seq)};
    m.has_immediate = r.op == Opcode::kSendWithImm || r.op == Opcode::kWriteWithImm;
    m.is_write = r.op == Opcode::kWriteWithImm;
    if (r.op == Opcode::kSendWithInvalidate) {
      m.window = r.window;
      m.immediate = r.key;
    }
  }
  if (r.op == Opcode::kRead && !r.must_fail) {
    std::memcpy(expected_ + size_t{r.slot} * world_->stride(), future_ + r.at, r.length);
  }
  if (r.operates()) r.original = future_words_[r.at];
  Apply(r, future_, future_words_);
}

void Flow::Apply(const Request& r, std::byte* memory, uint64_t* words) {
  if (r.writes()) FillPattern(memory + r.at, r.pattern, 0, r.length);
  if (!r.operates()) return;
  if (r.op == Opcode::kFetchAdd) {
    words[r.at] += r.operand;
  } else if (words[r.at] == r.operand) {
    words[r.at] = r.swap;
  }
}

void Flow::OnSend(const WorkCompletion& wc) {
  while (head_ != tail_ && at(head_).seq != wc.id) {
    Request& r = at(head_);
    if (r.signaled || failed_) {
      return verdict_->Fail("request ", wc.id, " of end ", end_, " completes (",
                            WcStatusName(wc.status), ") and ", Name(r), " has not");
    }
    ++head_;
    Succeeded(r);
  }
  if (head_ == tail_)
    return verdict_->Fail("end ", end_, ": a completion of ", wc.id, ", ",
                          "which completed before or was never posted");
  Request& r = at(head_++);
  polled_ = head_;
  if (wc.ok()) {
    if (failed_) return verdict_->Fail(Name(r), " completes well after an error");
    if (r.must_fail) return verdict_->Fail(Name(r), " completes well and must fail");
    if (!r.signaled) return verdict_->Fail(Name(r), " completes without a signal");
    if (wc.opcode != CompletionOf(r.op)) return verdict_->Fail(Name(r), ": opcode is wrong");
    const bool read = r.op == Opcode::kRead || CompletionOf(r.op) == WcOpcode::kFetchAdd ||
                      CompletionOf(r.op) == WcOpcode::kCompareSwap;
    if (wc.length != (read ? r.length : 0)) return verdict_->Fail(Name(r), ": length is wrong");
    return Succeeded(r);
  }
  uint32_t allowed = r.may_fail;
  if (doom_->ended || doom_->offences > (r.may_fail != 0 ? 1u : 0u)) allowed |= kFlush;
  if (doom_->brief_receives || doom_->bad_receives) allowed |= kFlush;
  if (doom_->brief_receives && TakesReceive(r.op)) allowed |= Bit(WcStatus::kRemoteInvalidRequest);
  if (doom_->bad_receives && TakesReceive(r.op)) allowed |= Bit(WcStatus::kRemoteOperationError);
  if (doom_->may_be_lost) allowed |= kFlush;
  if (doom_->lost || doom_->may_be_lost || own_.gave_up || peer_.gave_up)
    allowed |= Bit(WcStatus::kRetryExceeded);
  if (failed_) allowed = kFlush;
  if ((allowed & Bit(wc.status)) == 0) {
    return verdict_->Fail(Name(r), " completes with ", WcStatusName(wc.status),
                          failed_ ? " after an error" : "");
  }
  if (wc.status == WcStatus::kRnrRetryExceeded &&
      own_.qp.counters().rnr_naks_received <= own_.qp.Query().rnr_retry) {
    return verdict_->Fail(Name(r), " was given up after too few refusals");
  }
  failed_ = true;
  Scribble(r);
}

// The memory is the program's again.
void Flow::Scribble(const Request& r) {
  const bool local = r.op != Opcode::kRead && !r.operates() && !r.shared_word;
  if (!local || own_.areas[kSources].dead) return;
  r.layout.Each([&](size_t place, uint32_t, uint32_t n) {
    std::memset(own_.areas[kSources].host + place, 0xee, n);
  });
}

void Flow::Succeeded(Request& r) {
  Applied(r.seq);
  if (verdict_->failed()) return;
  if (r.may_fail != 0) --doom_->offences;
  if (r.op == Opcode::kRead) CheckRead(r);
  if (r.op == Opcode::kFetchAdd || r.op == Opcode::kCompareSwap) CheckAtomic(r);
  if (r.op == Opcode::kBindWindow) own_.windows[r.at].state = WindowState::kBound;
  if (r.op == Opcode::kLocalInvalidate) own_.windows[r.at].state = WindowState::kFree;
  if (TakesReceive(r.op)) {
    // The oldest that its own end did not know of yet.
    if (completed_message_ < message_tail_) ++completed_message_;
  }
}

void Flow::Applied(uint64_t seq) {
  for (; applied_ <= seq && !verdict_->failed(); ++applied_) {
    const Request& r = at(applied_);
    if (r.writes()) CheckWritten(r);
    Apply(r, committed_, committed_words_);
  }
}

// A later request that was posted may have put `value` there.
bool Flow::LaterWrote(uint64_t seq, size_t place, std::byte value, bool stop_at_fence) {
  for (uint64_t j = seq + 1; j < tail_; ++j) {
    const Request& r = at(j);
    if (stop_at_fence && r.fenced) return false;
    if (r.writes() && place >= r.at && place - r.at < r.length &&
        PatternByte(r.pattern, place - r.at) == value) {
      return true;
    }
  }
  return false;
}

void Flow::CheckWritten(const Request& r) {
  const Area& target = peer_.areas[kTarget];
  if (target.dead) return;
  const std::byte* p = target.host + r.at;
  if (std::memcmp(p, future_ + r.at, r.length) == 0) return;
  for (uint32_t i = 0; i < r.length; ++i) {
    if (p[i] != PatternByte(r.pattern, i) && !LaterWrote(r.seq, r.at + i, p[i], false)) {
      return verdict_->Fail(Name(r), " is applied, and byte ", i, " of ", r.length,
                            " at the peer is neither its own nor a later one's");
    }
  }
}

void Flow::CheckRead(const Request& r) {
  const Area& sinks = own_.areas[kSinks];
  if (sinks.dead) return;
  const std::byte* expected = expected_ + size_t{r.slot} * world_->stride();
  r.layout.Each([&](size_t place, uint32_t offset, uint32_t n) {
    const std::byte* p = sinks.host + place;
    if (std::memcmp(p, expected + offset, n) == 0) return;
    for (uint32_t i = 0; i < n; ++i) {
      if (p[i] != expected[offset + i] && !LaterWrote(r.seq, r.at + offset + i, p[i], true)) {
        return verdict_->Fail(Name(r), " brought a wrong byte ", offset + i, " of ", r.length);
      }
    }
  });
}

void Flow::CheckAtomic(const Request& r) {
  const Area& sinks = own_.areas[kSinks];
  if (sinks.dead) return;
  uint64_t got = 0;
  r.layout.Each([&](size_t place, uint32_t offset, uint32_t n) {
    std::memcpy(reinterpret_cast<std::byte*>(&got) + offset, sinks.host + place, n);
  });
  if (r.shared_word) {
    if (got < shared_seen_[r.at]) return verdict_->Fail(Name(r), " brought an old value");
    shared_seen_[r.at] = got + r.operand;
  } else if (got != r.original) {
    verdict_->Fail(Name(r), " brought ", got, " and should have ", r.original);
  }
}

void Flow::OnMessage(const WorkCompletion& wc, PostedReceive& receive, const Area& area) {
  if (message_head_ == message_tail_) {
    return verdict_->Fail("end ", end_ ^ 1, " received what was never sent");
  }
  const Message m = message(message_head_++);
  const bool write = wc.opcode == WcOpcode::kReceiveWriteWithImm;
  const bool named = m.has_immediate || m.window != 0;
  if (write != m.is_write || wc.length != m.length || wc.has_immediate != m.has_immediate ||
      wc.has_invalidated != (m.window != 0) || (named && wc.immediate_or_key != m.immediate)) {
    return verdict_->Fail("end ", end_, "'s message ", m.seq, ": its completion is wrong: length ",
                          wc.length, " for ", m.length);
  }
  if (m.window != 0) peer_.windows[m.window - 1].state = WindowState::kFree;
  if (!m.is_write && m.length > receive.capacity) {
    return verdict_->Fail("end ", end_, "'s message ", m.seq, " is longer than its receive");
  }
  const uint32_t length = m.is_write ? 0 : m.length;
  if (!area.dead) {
    receive.layout.Each([&](size_t place, uint32_t offset, uint32_t n) {
      const uint32_t used = offset >= length ? 0 : std::min(n, length - offset);
      const size_t bad = Differs(area.host + place, m.pattern, offset, used);
      for (size_t i = used; i < n + kGap; ++i) {
        if (area.host[place + i] != std::byte{0xaa}) {
          return verdict_->Fail("end ", end_, "'s message ", m.seq,
                                " was placed beyond its own bytes");
        }
      }
      if (bad != used) {
        verdict_->Fail("end ", end_, "'s message ", m.seq, ": byte ", offset + bad, " of ", length,
                       " is wrong");
      }
    });
  }
  if (!verdict_->failed()) Applied(m.seq);
}

// Whether the peer's memory is `work_` with a part of `r`, whose last byte comes last.
bool Flow::IsPrefixWithPart(const Request& r) {
  const Area& target = peer_.areas[kTarget];
  const std::byte* p = target.host;
  if (std::memcmp(p, work_, r.at) != 0) return false;
  const size_t end = r.at + r.length;
  if (std::memcmp(p + end, work_ + end, target.size - end) != 0) return false;
  const std::byte last = PatternByte(r.pattern, r.length - 1);
  const bool complete = p[end - 1] == last && work_[end - 1] != last;
  for (uint32_t i = 0; i < r.length; ++i) {
    const bool is_new = p[r.at + i] == PatternByte(r.pattern, i);
    if (!is_new && (complete || p[r.at + i] != work_[r.at + i])) return false;
  }
  return true;
}

bool Flow::FailsInTheMiddle(uint32_t longer_than) const {
  for (uint64_t seq = applied_; seq != tail_; ++seq) {
    const Request& r = requests_[seq % kRing];
    if (r.must_fail && !r.no_effect && r.length > longer_than && TakesReceive(r.op) &&
        r.op != Opcode::kWriteWithImm) {
      return true;
    }
  }
  return false;
}

void Flow::Inspect() {
  const Area& target = peer_.areas[kTarget];
  const Area& words = peer_.areas[kWords];
  if (target.dead) {
    for (size_t i = 0; i < target.size; ++i) {
      if (target.host[i] != std::byte{0xee}) {
        return verdict_->Fail("end ", end_ ^ 1, "'s memory changed after it was deregistered");
      }
    }
    return;
  }
  std::memcpy(work_, committed_, target.size);
  std::memcpy(work_words_, committed_words_, sizeof(work_words_));
  for (uint64_t seq = applied_;; ++seq) {
    const bool words_fit = std::memcmp(words.host, work_words_, sizeof(work_words_)) == 0;
    if (words_fit && std::memcmp(target.host, work_, target.size) == 0) return;
    if (seq == tail_) break;
    const Request& r = at(seq);
    if (words_fit && r.writes() && IsPrefixWithPart(r)) return;
    Apply(r, work_, work_words_);
  }
  verdict_->Fail("end ", end_ ^ 1, "'s memory is not what the first of end ", end_,
                 "'s requests make of it, wherever one stops (", tail_ - applied_, " outstanding)");
}

// At rest: unsignalled ones that completed well did so without a word.
void Flow::TakeSilent() {
  while (!failed_ && head_ != tail_ && !at(head_).signaled && !verdict_->failed()) {
    Request& r = at(head_++);
    if (r.must_fail) return verdict_->Fail(Name(r), " must fail, and says nothing");
    Succeeded(r);
  }
}

void Flow::AtRest() {
  TakeSilent();
  if (verdict_->failed()) return;
  if (head_ != tail_) return verdict_->Fail(Name(at(head_)), " never completes");
  if (message_head_ != message_tail_) {
    return verdict_->Fail("end ", end_, "'s message ", next_message()->seq, " was never received");
  }
  const Area& target = peer_.areas[kTarget];
  if (target.dead) return Inspect();
  for (size_t i = 0; i < target.size; ++i) {
    if (target.host[i] != future_[i]) {
      return verdict_->Fail("at rest, byte ", i, " of end ", end_ ^ 1, "'s memory is wrong");
    }
  }
  if (std::memcmp(peer_.areas[kWords].host, future_words_, sizeof(future_words_)) != 0) {
    verdict_->Fail("at rest, a word of end ", end_ ^ 1, " is wrong");
  }
}

void Flow::AfterDeath(bool politely) {
  TakeSilent();
  if (verdict_->failed()) return;
  if (head_ != tail_) return verdict_->Fail(Name(at(head_)), " never completes after an error");
  if (message_head_ < completed_message_) {
    return verdict_->Fail("end ", end_, "'s message ", message(message_head_).seq,
                          " completed well, and was never received");
  }
  if (politely && completed_message_ < message_head_) {
    return verdict_->Fail("end ", end_, "'s message ", message(completed_message_).seq,
                          " was received before the peer ended the link, and is no success");
  }
  Inspect();
}

void Flow::Forget() {
  const Area& target = peer_.areas[kTarget];
  std::memcpy(future_, target.host, target.size);
  std::memcpy(committed_, target.host, target.size);
  std::memcpy(future_words_, peer_.areas[kWords].host, sizeof(future_words_));
  std::memcpy(committed_words_, future_words_, sizeof(future_words_));
  head_ = applied_ = polled_ = tail_;
  message_head_ = completed_message_ = message_tail_;
  failed_ = false;
}

}  // namespace verbena::sim
