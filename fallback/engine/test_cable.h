// SPDX-License-Identifier: Apache-2.0
// Queue pairs of the engine without sockets: a Side is one with its memory and completion queues,
// a Cable moves bytes between two of them in pieces that a seed chooses. A test may also speak to
// one Side by hand: Feed() and Drain(), with the FPDUs of test_fpdu.h.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

// Reaches what no user of a queue pair can.
class QueuePairTestPeer {
 public:
  static void SetState(QueuePair* qp, QpState state) { qp->SetState(state); }
  // As if the message under way had so many bytes already.
  static void SetMessageBytes(QueuePair* qp, uint32_t n) {
    qp->send_offset_ = qp->write_bytes_ = n;
  }
  // As if the requests of both directions had been so many: the next one has number n everywhere.
  static void SetNumbers(QueuePair* qp, uint32_t n) {
    qp->next_rsn_ = qp->send_msn_ = qp->read_msn_ = qp->atomic_msn_ = n;
    qp->expected_send_msn_ = qp->expected_read_msn_ = n;
    qp->acked_rsn_ = qp->applied_rsn_ = qp->told_rsn_ = qp->next_sink_ = n - 1;
  }
};

inline constexpr Access kEverything = Access::kLocalWrite | Access::kRemoteWrite |
                                      Access::kRemoteRead | Access::kRemoteAtomic |
                                      Access::kWindowBind;

// How many bytes the next piece has, at most.
class Chunks {
 public:
  explicit Chunks(size_t fixed) : fixed_(fixed) {}  // 0: as many as there are
  static Chunks Seeded(uint32_t seed) {
    Chunks c(0);
    c.seeded_ = true;
    c.random_.seed(seed);
    return c;
  }
  size_t Next();

 private:
  size_t fixed_;
  bool seeded_ = false;
  std::minstd_rand random_;
};

struct SideOptions {
  QpType type = QpType::kRc;
  uint32_t number = 1;
  uint32_t domain = 3;
  QpLimits limits = {.max_send_wr = 64,
                     .max_receive_wr = 64,
                     .max_send_sge = 4,
                     .max_receive_sge = 4,
                     .max_inline = 256};
  bool signal_all = true;
  Access access = kEverything;
  ReceiveQueue* shared = nullptr;
  uint32_t completions = 1024;
  Hardships hardships = {};
};

class Side : QueuePairObserver, WindowBinder, CompletionObserver {
 public:
  explicit Side(const SideOptions& options = {});

  KeyTable keys;
  CompletionRing send_ring;
  CompletionRing receive_ring;
  const std::unique_ptr<QueuePair> owned;  // on the heap: gcc misaligns it in its fake stacks
  QueuePair& qp;
  std::vector<EventType> events;
  int notified = 0;
  int overflows = 0;
  int shared_limits = 0;
  uint32_t next_window_key = 0;   // of the binds to come; 0: drawn
  std::function<void()> on_news;  // called at each event and notification

  PostResult Post(const SendWr& wr) { return qp.PostSend({&wr, 1}); }
  bool PostReceive(const ReceiveWr& wr) {  // whether the peer waits for it
    bool wake = false;
    qp.PostReceive({&wr, 1}, &wake);
    return wake;
  }

  // "1 SUCCESS, 2 WR_FLUSH_ERR": what has completed since the last call.
  std::string Sends() { return Statuses(&send_ring); }
  std::string Receives() { return Statuses(&receive_ring); }
  WorkCompletion NextReceive();
  WorkCompletion NextSend();
  bool Had(EventType event) const;

  // The other end by hand. Feed: the stream brings `bytes`. Drain: what this end sends.
  void Feed(std::span<const std::byte> bytes, Chunks chunks = Chunks(0), Nanos now = 0);
  std::vector<std::byte> Drain(bool idle = true, Nanos now = 0);

 private:
  friend class Cable;
  static std::string Statuses(CompletionRing* ring);
  QueuePairConfig Configure(const SideOptions& options);
  void OnEvent(EventType type, const absl::Status&) override {
    events.push_back(type);
    if (on_news) on_news();
  }
  void OnSharedLimit() override { ++shared_limits; }
  void PrepareBind(const WindowBinding& bind, SendEntry* entry) override;
  void OnNotify() override {
    ++notified;
    if (on_news) on_news();
  }
  void OnPushed() override {}
  void OnOverflow() override { ++overflows; }
};

// Memory registered with a Side.
class Memory {
 public:
  Memory(Side* side, size_t size, Access access = kEverything, uint32_t domain = 3);
  ~Memory() { Kill(); }
  void Kill() { side_->keys.Kill(&region); }
  Sge sge(uint64_t offset = 0, uint32_t length = ~0u) const;
  RemoteAddress at(uint64_t offset = 0) const;
  uint32_t key() const { return region.key; }
  std::byte* data() { return reinterpret_cast<std::byte*>(words_.data()); }
  std::span<std::byte> bytes(size_t offset, size_t n) { return {data() + offset, n}; }
  uint64_t& word(size_t i) { return words_[i]; }
  void Fill(uint8_t seed);
  bool Has(uint8_t seed, size_t offset, size_t n) const;  // the bytes of Fill(seed) at 0..n
  bool IsZero() const;

  Region region;

 private:
  Side* side_;
  size_t size_;
  std::vector<uint64_t> words_;
};

// A memory window, and what a bind of it looks like in a request.
class Window {
 public:
  explicit Window(Side* side, uint32_t domain = 3, bool type_1 = false) : side_(side) {
    region_.window = true;
    region_.type_1 = type_1;
    region_.domain = domain;
  }
  ~Window() { side_->keys.Kill(&region_); }
  SendWr Bind(Memory* memory, uint64_t offset, uint64_t length, Access access, uint64_t id = 1);
  uint32_t key() const { return region_.key; }
  Region& region() { return region_; }

 private:
  Side* side_;
  Region region_;
};

// Sessions of two own ends, and with a plain iWARP one.
Session OwnSession(bool initiator, bool crc = false, uint32_t depth = 16,
                   QpType type = QpType::kRc);
Session ForeignSession(bool initiator, uint32_t mss = 1460, bool crc = false, uint32_t depth = 16);

class Cable {
 public:
  Cable(Side* a, Side* b, Chunks chunks = Chunks(0));

  // Until both ends are silent.
  void Run();
  // One turn of one end: what it has to send goes onto the cable (0: a to b).
  void Send(int from, bool idle = true);
  // What is on the cable arrives.
  void Deliver(int from);
  // The stream that carries from's bytes ends: with what is on the cable lost, or after it.
  void Cut(int from, int error = 0);
  size_t OnTheWay(int from) const { return end_[from] - begin_[from]; }

  // Every byte that `from` has sent, if it is kept.
  void Keep(bool keep) { keep_ = keep; }
  std::vector<std::byte> Sent(int from) const { return sent_[from]; }
  // The same as text, see test_fpdu.h, and forgotten.
  std::string Trace(int from);

  Nanos now = 0;

 private:
  static constexpr size_t kCapacity = 4 << 20;
  Side* const side_[2];
  Chunks chunks_;
  std::unique_ptr<std::byte[]> pipe_[2];
  size_t begin_[2] = {};
  size_t end_[2] = {};
  bool keep_ = true;
  std::vector<std::byte> sent_[2];
};

// Two connected sides and the cable between them.
struct Wired {
  explicit Wired(Chunks chunks = Chunks(0), bool crc = false, SideOptions left = {},
                 SideOptions right = {.number = 2})
      : a(left), b(right), cable(&a, &b, chunks) {
    a.qp.Connected(OwnSession(true, crc, 16, left.type));
    b.qp.Connected(OwnSession(false, crc, 16, right.type));
    // The initiator's empty Write, after which the other end may speak.
    a.Post({.opcode = Opcode::kWrite, .id = 0, .flags = SendFlags::kSignaled});
    cable.Run();
    a.Sends();
    cable.Trace(0);
    cable.Trace(1);
  }
  Side a, b;
  Cable cable;
};

// Requests of one entry.
inline SendWr SendOf(const Sge& sge, uint64_t id) {
  return {.opcode = Opcode::kSend, .local = sge, .id = id};
}
inline SendWr WriteOf(const Sge& sge, RemoteAddress to, uint64_t id) {
  return {.opcode = Opcode::kWrite, .local = sge, .remote = to, .id = id};
}
inline SendWr ReadOf(const Sge& sge, RemoteAddress from, uint64_t id) {
  return {.opcode = Opcode::kRead, .local = sge, .remote = from, .id = id};
}

}  // namespace verbena::engine
