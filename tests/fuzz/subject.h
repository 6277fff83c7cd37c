// SPDX-License-Identifier: Apache-2.0
// A live queue pair under a fuzzer: its memory, what is posted to it, and the rules that hold
// whatever its peer says.
//
//   - Memory changes only where somebody was allowed to write: a region with remote write while its
//     key lives, a bound window, a receive or a sink that is posted and has not completed.
//   - Everything posted completes once, in order; nothing succeeds after a failure.
//   - A request that succeeds has left this end.
//   - What goes out are sound FPDUs, within the limits of the connection, of bytes that the peer
//     may see.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"

namespace verbena::fuzz {

// Parts of one array, with bytes between them that belong to nobody.
enum class Area : uint8_t {
  kWritable,  // remote write
  kReadable,  // remote read; its bytes, and no others, are below 0x80
  kAtomic,    // remote atomics
  kPrivate,   // local only: what the application sends
  kForeign,   // every right, in another protection domain
  kLendable,  // windows are bound to its middle half
  kSinks,     // receives and the targets of reads
};
inline constexpr int kAreas = 7;

struct SubjectOptions {
  engine::Session session;
  bool signal_all = true;
  bool shared_receives = false;
  uint8_t rnr_retry = 7;
};

// A read or atomic of the subject's that waits for its answer.
struct Question {
  bool atomic = false;
  uint32_t sink = 0;  // or the atomic's number
  uint32_t size = 0;
  uint32_t done = 0;
  uint32_t rsn = 0;
};

class Subject {
 public:
  explicit Subject(const SubjectOptions& options);
  ~Subject();
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  engine::QueuePair& qp() { return side_->qp; }
  const engine::Session& session() const { return options_.session; }

  // --- the application
  void PostReceive(uint32_t length, bool two_pieces);
  void PostSend(Opcode opcode, uint32_t length, SendFlags flags, uint32_t pieces);
  void Kill(Area area);
  void Move(engine::Nanos by);
  void Poll();
  // --- the stream
  void Feed(std::span<const std::byte> bytes, engine::Chunks* chunks);
  void Drain(size_t most, bool idle);
  void End(int error);
  // Ends the connection and checks what is left.
  void Finish();

  // --- what the peer knows
  uint32_t key(Area area) const { return regions_[static_cast<int>(area)].key; }
  uint64_t at(Area area) const;
  uint32_t window_key() const { return window_.key; }
  uint32_t sent_rsn() const { return sent_rsn_; }  // of the last request that came whole
  std::deque<Question>& questions() { return questions_; }
  // The request that was refused for want of a receive, once; 0: none was.
  uint32_t TakeRefused() { return std::exchange(refused_, 0); }

 private:
  struct Span {  // of the array
    size_t begin = 0;
    size_t size = 0;
  };
  struct Posted {
    uint64_t id = 0;
    bool signaled = true;
    bool counts = false;  // has a request number
    bool lends = false;   // a bind
    std::vector<Span> sinks = {};
  };
  struct Queue {
    const char* name;
    std::deque<Posted> posted = {};
    bool failed = false;
  };

  Span Sink(uint32_t size);
  bool MayChange(Span span) const;  // any of it
  void Allow(Span span, bool yes);  // to change; if not, its bytes are what they must remain
  void Completed(Queue* queue, const WorkCompletion& wc);
  void WindowDied();
  void CheckMemory() const;
  void CheckFpdu(const engine::Fpdu& fpdu);
  void CheckNumbers(const engine::Fpdu& fpdu);

  const SubjectOptions options_;
  std::vector<uint64_t> words_;  // the array
  std::span<std::byte> bytes_;
  std::vector<uint64_t> must_be_words_;
  std::span<std::byte> must_be_;
  std::map<size_t, size_t> may_change_;  // begin and size; they do not overlap
  std::unique_ptr<engine::ReceiveQueue> shared_;
  std::unique_ptr<engine::Side> side_;
  engine::Region regions_[kAreas];
  engine::Region window_;
  Span lent_;
  size_t next_sink_ = 0;
  engine::Nanos now_ = 0;
  uint64_t next_id_ = 1;
  Queue sends_{"send"};
  Queue receives_{"receive"};
  uint64_t left_ = 0;  // successes of requests that have a number
  bool ended_ = false;

  engine::Bytes sent_;  // no whole FPDU yet
  bool last_words_ = false;
  bool ready_frame_due_;
  uint32_t sent_rsn_ = 0;
  uint32_t most_rsn_ = 0;
  uint32_t refused_ = 0;
  std::deque<Question> questions_;
};

}  // namespace verbena::fuzz
