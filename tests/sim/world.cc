// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world.h"

#include <cerrno>
#include <new>

#include "fallback/engine/test_allocations.h"
#include "fallback/engine/test_cable.h"
#include "fallback/wire/extension.h"

namespace verbena::sim {

namespace {

constexpr uint32_t kDomain = 3;
constexpr Nanos kFarewell = 1'000'000'000;  // as fallback/datapath.cc gives last words
constexpr int kCallsPerDrive = 8;
constexpr Access kEverything = Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead |
                               Access::kRemoteAtomic | Access::kWindowBind;

// Makes each allocation of `call` fail in turn; a call that failed has done nothing.
template <typename F>
void Insist(bool refusals, F call) {
  for (uint32_t nth = 1; refusals; ++nth) {
    engine::RefuseAllocation(nth);
    try {
      call();
      engine::RefuseAllocation(0);
      return;
    } catch (const std::bad_alloc&) {
    }
  }
  call();
}

}  // namespace

Node::Node(uint32_t completions, uint32_t shared_receives)
    : send_ring(completions, this), receive_ring(completions, this) {
  if (shared_receives > 0) {
    shared = std::make_unique<engine::ReceiveQueue>(shared_receives, kMostPieces);
  }
}

engine::QueuePairConfig End::Configure(const Config& config, uint32_t number) {
  engine::QueuePairConfig c;
  c.number = number;
  c.domain = c.receive_domain = kDomain;
  c.limits = {config.slots, config.slots, kMostPieces, kMostPieces, 128};
  c.access = kEverything;
  c.signal_all = config.signal_all;
  c.send_ring = &node->send_ring;
  c.receive_ring = &node->receive_ring;
  c.shared_receives = node->shared.get();
  c.keys = &node->keys;
  c.observer = this;
  c.binder = this;
  c.hardships = config.hardships;
  return c;
}

End::End(const Config& config, Node* on, uint32_t number, bool initiates)
    : node(on),
      owned(std::make_unique<engine::QueuePair>(Configure(config, number))),
      qp(*owned),
      initiator(initiates) {
  qp.SetRetry(config.rnr_retry, 7, 18);
}

void End::Connect(const Config& config, Wire* from, Wire* to) {
  in = from;
  out = to;
  events.fill(0);
  drained = gave_up = false;
  farewell_ = engine::kNever;
  engine::Session s;
  s.initiator = initiator;
  s.ready_frame = config.ready_frame;
  s.crc = config.crc;
  s.features.features =
      wire::kAcknowledge | wire::kRnr | wire::kImmediate | wire::kAtomics | wire::kLargeFpdu;
  s.features.max_payload = config.max_payload;
  s.ord = s.ird = config.depth;
  Insist(config.refusals, [&] { qp.Connected(s); });
  engine::QueuePairTestPeer::SetNumbers(&qp, config.first_number);
  (void)qp.Modify({.min_rnr_timer = config.rnr_timer});
  attached_ = true;
}

void End::OnEvent(EventType type, const absl::Status&) {
  ++events[static_cast<size_t>(type)];
  if (type == EventType::kSendQueueDrained) {
    drained = true;
    drained_at = qp.counters().send_completions;
  }
}

void End::PrepareBind(const WindowBinding& bind, engine::SendEntry* entry) {
  entry->window = reinterpret_cast<engine::Region*>(bind.window);
  entry->region = const_cast<engine::Region*>(reinterpret_cast<const engine::Region*>(bind.region));
  entry->window->pending.fetch_add(1);
  entry->region->pending.fetch_add(1);
  entry->compare_add = bind.address;
  entry->swap = bind.length;
  entry->bind_access = bind.access;
  entry->remote_address = bind.address;
  entry->immediate_or_key = bind_key = node->keys.NewKey();
}

Nanos End::deadline() const {
  if (!attached_) return engine::kNever;
  return qp.closing() ? std::min(qp.deadline(), farewell_) : qp.deadline();
}

bool End::Turn(size_t most_in, size_t most_out, bool idle, Nanos now) {
  if (!attached_) {
    qp.FlushPosted();
    if (in == nullptr || in->there() == 0) return false;
    in->Drop();  // the lingerer reads and forgets
    return true;
  }
  qp.Tick(now);
  bool moved = false;
  if (most_in > 0) moved = Receive(most_in, now, &idle);
  moved |= Send(most_out, idle, now);
  qp.FlushPosted();
  if (qp.closing() && farewell_ == engine::kNever) farewell_ = now + kFarewell;
  if (qp.state() == QpState::kErr && qp.finished() && !qp.HasUnsent()) {
    EndStream();
    return true;
  }
  if (qp.closing() && now >= farewell_) {
    gave_up = true;
    Abandon();
    return true;
  }
  return moved;
}

bool End::Receive(size_t most, Nanos now, bool* idle) {
  std::array<iovec, engine::kMaxSge + 1> space;
  bool moved = false;
  for (int i = 0; i < kCallsPerDrive; ++i) {
    const size_t there = in->stalled() ? 0 : std::min(most, in->there());
    if (there == 0) {
      *idle = true;
      if (in->stalled() || !in->closed() || in->there() > 0) return moved;
      if (qp.connected() && !qp.finished()) {
        qp.ReceiveEnded(in->broken() ? ECONNRESET : 0, now);
        moved = true;
      }
      return moved;
    }
    const int count = qp.ReceiveSpace(space.data(), static_cast<int>(space.size()));
    size_t done = 0;
    for (int k = 0; k < count && done < there; ++k) {
      const size_t n = std::min(space[k].iov_len, there - done);
      in->Read(space[k].iov_base, n);
      done += n;
    }
    if (done == 0) return moved;
    moved = true;
    qp.Received(done, now);
  }
  return moved;
}

bool End::Send(size_t most, bool idle, Nanos now) {
  bool moved = false;
  for (int i = 0; i < kCallsPerDrive; ++i) {
    const std::span<const iovec> vectors = qp.Gather(idle, now);
    if (vectors.empty()) return moved;
    if (out->broken()) {
      qp.SendFailed(EPIPE);
      bool ignored = false;
      return Receive(SIZE_MAX, now, &ignored) || moved;
    }
    size_t room = std::min(most, out->room());
    size_t n = 0;
    for (const iovec& v : vectors) {
      const size_t part = std::min(v.iov_len, room);
      out->Write(v.iov_base, part);
      room -= part;
      n += part;
    }
    if (n == 0) return moved;
    moved = true;
    qp.Sent(n);
    if (qp.HasUnsent()) return moved;
  }
  return moved;
}

// The lingerer gets what is left and ends the stream behind it.
void End::EndStream() {
  const std::vector<std::byte> rest = qp.TakeUnsent();
  if (out->room() >= rest.size()) out->Write(rest.data(), rest.size());
  out->Close();
  qp.Detach();
  attached_ = false;
}

void End::Abandon() {
  if (!attached_) return;
  (void)qp.TakeUnsent();
  EndStream();
}

std::byte* Pool::Take(size_t n) {
  const size_t rounded = (n + 63) & ~size_t{63};
  if (used_ + rounded > size_) return nullptr;
  std::byte* at = bytes_.get() + used_;
  used_ += rounded;
  return at;
}

World::World(const Config& config, Pool* pool) : config_(config), nodes_n_(config.nodes) {
  const uint32_t completions = 2 * config.links * config.slots + 64;
  for (uint32_t i = 0; i < config.nodes; ++i) {
    const bool shared = config.shared_receives && i == 0;
    nodes_.push_back(std::make_unique<Node>(completions, shared ? config.slots : 0));
  }
  for (uint32_t i = 0; i < 2 * config.links; ++i) {
    const bool initiator = i % 2 == (config.seed >> 7) % 2;
    ends_.push_back(std::make_unique<End>(config, nodes_[NodeOf(i)].get(), 16 + i, initiator));
  }
  stride_ = (config.longest + kMostPieces * kGap + 7) & ~7u;
  GiveMemory(config, pool);
  for (uint32_t i = 0; i < config.links; ++i) {
    links_.push_back(std::make_unique<Link>());
    Connect(i);
  }
}

void World::Register(Node* node, Area* area, Access access) {
  engine::Region& r = area->region;
  r.key = node->keys.NewKey();
  r.domain = kDomain;
  r.access = access;
  r.host = area->host;
  r.first = reinterpret_cast<uint64_t>(area->host);
  r.length = area->size;
  area->dead = false;
  Insist(config_.refusals, [&] { node->keys.Add(&r); });
}

void World::GiveMemory(const Config& config, Pool* pool) {
  const auto give = [&](Node* node, Area* area, size_t size, Access access) {
    area->host = pool->Take(size);
    area->size = size;
    Register(node, area, access);
  };
  constexpr Access kLocal = Access::kLocalWrite;
  const size_t slots = size_t{config.slots} * stride_;
  for (auto& n : nodes_) {
    give(n.get(), &n->receives, slots, kLocal);
    give(n.get(), &n->words, kWordCount * 8, kEverything);
    std::memset(n->words.host, 0, kWordCount * 8);
  }
  for (auto& e : ends_) {
    give(e->node, &e->areas[kSources], slots, Access::kLocalRead);
    give(e->node, &e->areas[kSinks], slots, kLocal);
    give(e->node, &e->areas[kReceives], slots, kLocal);
    give(e->node, &e->areas[kTarget], size_t{4} * config.longest,
         kLocal | Access::kRemoteWrite | Access::kRemoteRead | Access::kWindowBind);
    for (Window& w : e->windows) {
      w.region.window = true;
      w.region.domain = kDomain;
    }
    give(e->node, &e->areas[kWords], kWordCount * 8, kLocal | Access::kRemoteAtomic);
  }
}

void World::Connect(uint32_t i) {
  Link& l = *links_[i];
  for (Wire& w : l.wires) w.Open(config_.window);
  End& a = *ends_[2 * i];
  End& b = *ends_[2 * i + 1];
  a.Connect(config_, &l.wires[1], &l.wires[0]);
  b.Connect(config_, &l.wires[0], &l.wires[1]);
}

void World::Kill(Node* node, Area* area) {
  node->keys.Kill(&area->region);
  area->dead = true;
  for (auto& e : ends_) {
    if (e->node == node && e->qp.HasUnsent()) e->qp.KeepUnsent();
  }
}

}  // namespace verbena::sim
