// SPDX-License-Identifier: Apache-2.0
// The model: what one end has asked of its peer, and what must come of it. See README.md.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/sim/pattern.h"
#include "tests/sim/world.h"

namespace verbena::sim {

// The first thing that was not as the model says.
class Verdict {
 public:
  bool failed() const { return failed_; }
  const std::string& text() const { return text_; }
  template <typename... Args>
  void Fail(const Args&... args) {
    if (!failed_) text_ = absl::StrCat(args...);
    failed_ = true;
  }

 private:
  bool failed_ = false;
  std::string text_;
};

constexpr uint32_t Bit(WcStatus status) { return 1u << static_cast<uint32_t>(status); }
constexpr uint32_t kFlush = Bit(WcStatus::kFlushed);

// How the bytes of one message lie in memory: pieces with gaps between them.
struct Layout {
  size_t base = 0;  // in its area
  uint32_t count = 1;
  uint32_t lengths[kMostPieces] = {};

  // Calls f(place in the area, offset in the message, length) for each piece.
  template <typename F>
  void Each(F f) const {
    size_t place = base;
    uint32_t offset = 0;
    for (uint32_t i = 0; i < count; ++i) {
      f(place, offset, lengths[i]);
      place += lengths[i] + kGap;
      offset += lengths[i];
    }
  }
};

struct Request {
  uint64_t seq = 0;  // its id, too
  uint64_t pattern = 0;
  Opcode op = Opcode::kSend;
  uint32_t length = 0;
  uint32_t at = 0;  // in the target area; atomics: the word; binds: the window
  uint32_t slot = 0;
  uint32_t window = 0;  // of the peer, from 1; 0: none
  uint32_t key = 0;     // of that window
  bool signaled = false;
  bool fenced = false;
  bool shared_word = false;
  bool must_fail = false;
  bool no_effect = false;  // it fails before the peer does any of it
  uint32_t may_fail = 0;   // bits of statuses that it may be the first to fail with
  uint64_t operand = 0, swap = 0;
  uint64_t original = 0;  // what an atomic is to bring
  Layout layout;          // of the source, or of the sink

  bool writes() const {
    return (op == Opcode::kWrite || op == Opcode::kWriteWithImm) && length > 0 && !no_effect;
  }
  bool operates() const {
    return (op == Opcode::kFetchAdd || op == Opcode::kCompareSwap) && !shared_word && !no_effect;
  }
};

// A request that takes a receive at the peer.
struct Message {
  uint64_t seq = 0;
  uint64_t pattern = 0;
  uint32_t length = 0;
  uint32_t immediate = 0;
  bool has_immediate = false;
  bool is_write = false;
  uint32_t window = 0;  // that it invalidates, from 1; `immediate` is its key
};

struct PostedReceive {
  uint64_t id = 0;
  bool busy = false;
  uint32_t may_fail = 0;
  uint32_t capacity = 0;
  Layout layout;
};

// Receives of one end, or those that ends share.
struct Receives {
  std::array<PostedReceive, kMaxSlots> slots;
  uint64_t head = 0;  // not shared: the oldest
  uint64_t tail = 0;
  uint32_t outstanding = 0;
};

// What may end a link, beside the offences of single requests.
struct Doom {
  bool lost = false;            // its stream broke
  bool may_be_lost = false;     // if it has to copy what it sends, and has no memory
  bool ended = false;           // somebody ended it
  uint32_t enders = 0;          // bits of the link's ends
  uint32_t offences = 0;        // by either end
  bool brief_receives = false;  // receives that a message may not fit into
  bool bad_receives = false;    // receives whose memory is gone

  bool any() const {
    return lost || may_be_lost || ended || offences > 0 || brief_receives || bad_receives;
  }
  bool OnlyEndedBy(uint32_t end) const {
    return ended && enders == 1u << end % 2 && !lost && !may_be_lost && offences == 0 &&
           !brief_receives && !bad_receives;
  }
};

class Flow {
 public:
  static constexpr uint32_t kRing = 2 * kMaxSlots;
  static constexpr uint32_t kMessages = 256;

  Flow(World* world, uint32_t end, Doom* doom, Pool* pool, Verdict* verdict);

  // Posting
  // Places taken in the send queue: they come back when a completion behind them is polled.
  uint32_t places() const { return static_cast<uint32_t>(tail_ - polled_); }
  // The second: after an error nothing more is applied, and a program may go on posting for long.
  bool HasRoom(uint32_t slots) const { return places() < slots && tail_ - applied_ < kRing; }
  bool MessagesFull() const { return message_tail_ - message_head_ == kMessages; }
  uint64_t messages_under_way() const { return message_tail_ - message_head_; }
  Request& Next();          // to be filled, then Posted
  void Posted(Request& r);  // it was accepted: `future` changes
  std::byte* future() { return future_; }
  Request& at(uint64_t seq) { return requests_[seq % kRing]; }
  uint64_t head() const { return head_; }
  uint64_t tail() const { return tail_; }

  // Whether a message may begin that has no end, but more bytes than these.
  bool FailsInTheMiddle(uint32_t longer_than) const;

  // Completions of this end's queue pair.
  void OnSend(const WorkCompletion& wc);
  // A message of this flow has arrived at the peer in `receive`.
  void OnMessage(const WorkCompletion& wc, PostedReceive& receive, const Area& area);
  const Message* next_message() const {
    return message_head_ == message_tail_ ? nullptr : &messages_[message_head_ % kMessages];
  }

  // Checks
  void AtRest();  // alive: all has completed, memory is as it must be
  // All has completed, a prefix was applied. `politely`: the peer ended the link, and nothing else.
  void AfterDeath(bool politely);
  void Inspect();  // any time
  void Scribble(const Request& r);
  void Forget();  // RESET: nothing is outstanding, memory is what it is
  bool failed() const { return failed_; }

 private:
  Message& message(uint64_t n) { return messages_[n % kMessages]; }
  void TakeSilent();
  void Succeeded(Request& r);
  void Applied(uint64_t seq);  // it and all before it
  void CheckWritten(const Request& r);
  void CheckRead(const Request& r);
  void CheckAtomic(const Request& r);
  bool LaterWrote(uint64_t seq, size_t at, std::byte value, bool stop_at_fence);
  void Apply(const Request& r, std::byte* memory, uint64_t* words);
  bool IsPrefixWithPart(const Request& r);
  std::string Name(const Request& r) const;

  World* const world_;
  const uint32_t end_;
  End& own_;
  End& peer_;
  Doom* const doom_;
  Verdict* const verdict_;
  std::byte* future_;
  std::byte* committed_;
  std::byte* work_;
  std::byte* expected_;  // by reads, a slot each
  uint64_t future_words_[kWordCount] = {};
  uint64_t committed_words_[kWordCount] = {};
  uint64_t work_words_[kWordCount] = {};
  uint64_t shared_seen_[kWordCount] = {};  // at least, by own additions
  std::array<Request, kRing> requests_;
  std::array<Message, kMessages> messages_;
  uint64_t head_ = 0, tail_ = 0;
  uint64_t polled_ = 0;
  uint64_t applied_ = 0;  // all before it are known to be
  uint64_t message_head_ = 0, message_tail_ = 0;
  uint64_t completed_message_ = 0;  // behind the last that its own end knows to be received
  bool failed_ = false;
};

}  // namespace verbena::sim
