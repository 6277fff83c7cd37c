// SPDX-License-Identifier: Apache-2.0
// Nodes with engines, and the streams between them. Drives the engine as fallback/datapath.cc
// does; knows nothing of what is right.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "fallback/engine/queue_pair.h"
#include "tests/sim/scenario.h"
#include "tests/sim/wire.h"

namespace verbena::sim {

using engine::Nanos;

// Registered memory. Once dead it is the application's, who changes it at once.
struct Area {
  engine::Region region;
  std::byte* host = nullptr;
  size_t size = 0;
  bool dead = false;

  Sge sge(size_t offset, uint32_t length) const {
    return {region.first + offset, length, region.key};
  }
};

// Over an end's target area.
enum class WindowState : uint8_t { kFree, kChanging, kBound };
struct Window {
  engine::Region region;
  WindowState state = WindowState::kFree;  // as the program knows it
  uint32_t key = 0;
};
inline constexpr uint32_t kWindows = 2;

enum AreaKind : uint8_t { kSources, kSinks, kReceives, kTarget, kWords, kAreaKinds };

class Node : engine::CompletionObserver {
 public:
  Node(uint32_t completions, uint32_t shared_receives);

  engine::KeyTable keys;
  engine::CompletionRing send_ring;
  engine::CompletionRing receive_ring;
  std::unique_ptr<engine::ReceiveQueue> shared;
  Area receives;  // for the shared ones
  Area words;     // everybody's
  bool overflowed = false;

 private:
  void OnNotify() override {}
  void OnPushed() override {}
  void OnOverflow() override { overflowed = true; }
};

class End : engine::QueuePairObserver, engine::WindowBinder {
 public:
  End(const Config& config, Node* node, uint32_t number, bool initiator);

  void Connect(const Config& config, Wire* in, Wire* out);
  // One drive: takes up to `most_in` bytes in pieces, gives up to `most_out` at a time. Returns
  // whether anything moved or changed.
  bool Turn(size_t most_in, size_t most_out, bool idle, Nanos now);
  bool connected() const { return attached_; }
  void Abandon();  // the stream, with what is unsent
  Nanos deadline() const;

  Node* const node;
  const std::unique_ptr<engine::QueuePair> owned;
  engine::QueuePair& qp;
  std::array<Area, kAreaKinds> areas;
  std::array<Window, kWindows> windows;
  uint32_t bind_key = 0;  // of the latest bind
  Wire* in = nullptr;
  Wire* out = nullptr;
  const bool initiator;
  bool gave_up = false;               // could not say its last words in time
  std::array<uint32_t, 16> events{};  // how many of each since the connect
  uint64_t drained_at = 0;            // send completions when SQD had drained
  bool drained = false;

 private:
  engine::QueuePairConfig Configure(const Config& config, uint32_t number);
  void OnEvent(EventType type, const absl::Status& why) override;
  void OnSharedLimit() override {}
  void PrepareBind(const WindowBinding& bind, engine::SendEntry* entry) override;
  bool Receive(size_t most, Nanos now, bool* idle);
  bool Send(size_t most, bool idle, Nanos now);
  void EndStream();

  bool attached_ = false;  // has a stream
  Nanos farewell_ = engine::kNever;
};

struct Link {
  Wire wires[2];  // of the two ends, as senders
};

// Memory for all areas of a scenario, and for the model; kept from one to the next.
class Pool {
 public:
  explicit Pool(size_t size) : bytes_(new std::byte[size]), size_(size) {}
  void Clear() { used_ = 0; }
  std::byte* Take(size_t n);

 private:
  std::unique_ptr<std::byte[]> bytes_;
  size_t size_;
  size_t used_ = 0;
};

class World {
 public:
  World(const Config& config, Pool* pool);

  End& end(uint32_t i) { return *ends_[i]; }
  End& peer(uint32_t i) { return *ends_[i ^ 1]; }
  Node& node(uint32_t i) { return *nodes_[i]; }
  uint32_t NodeOf(uint32_t end) const { return end % 2 == 0 ? 0 : 1 + end / 2 % (nodes_n_ - 1); }
  Link& link(uint32_t i) { return *links_[i]; }
  uint32_t ends() const { return static_cast<uint32_t>(ends_.size()); }
  uint32_t stride() const { return stride_; }
  void Connect(uint32_t link);
  void Register(Node* node, Area* area, Access access);
  // A key has died: what is framed of its memory is copied, as ForgetDeadKeys does.
  void Kill(Node* node, Area* area);

  Nanos now = 1;

 private:
  void GiveMemory(const Config& config, Pool* pool);

  const Config& config_;
  const uint32_t nodes_n_;
  uint32_t stride_ = 0;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<End>> ends_;
  std::vector<std::unique_ptr<Link>> links_;
};

inline constexpr uint32_t kGap = 8;         // bytes between the pieces of a message in memory
inline constexpr uint32_t kMostPieces = 4;  // entries of a request or receive
inline constexpr uint32_t kWordCount = 8;   // for atomics, in an area of words

}  // namespace verbena::sim
