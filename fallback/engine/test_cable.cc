// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/test_cable.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "fallback/engine/handshake.h"
#include "fallback/engine/test_fpdu.h"
#include "fallback/wire/extension.h"

namespace verbena::engine {

size_t Chunks::Next() {
  if (seeded_) {
    // Mostly small, now and then more than a segment.
    static constexpr size_t kMost[] = {1, 3, 8, 24, 100, 5000, 70000, 300000};
    const size_t most = kMost[random_() % std::size(kMost)];
    return 1 + random_() % most;
  }
  return fixed_ == 0 ? SIZE_MAX : fixed_;
}

Side::Side(const SideOptions& options)
    : send_ring(options.completions, this),
      receive_ring(options.completions, this),
      owned(std::make_unique<QueuePair>(Configure(options))),
      qp(*owned) {
  events.reserve(64);
}

QueuePairConfig Side::Configure(const SideOptions& options) {
  QueuePairConfig c;
  c.type = options.type;
  c.number = options.number;
  c.domain = c.receive_domain = options.domain;
  c.limits = options.limits;
  c.access = options.access;
  c.signal_all = options.signal_all;
  c.send_ring = &send_ring;
  c.receive_ring = &receive_ring;
  c.shared_receives = options.shared;
  c.keys = &keys;
  c.observer = this;
  c.binder = this;
  c.hardships = options.hardships;
  return c;
}

// The API's handles are opaque here: they stand for the engine's objects themselves.
void Side::PrepareBind(const WindowBinding& bind, SendEntry* entry) {
  entry->window = reinterpret_cast<Region*>(bind.window);
  entry->region = const_cast<Region*>(reinterpret_cast<const Region*>(bind.region));
  entry->window->pending.fetch_add(1);
  entry->region->pending.fetch_add(1);
  entry->compare_add = bind.address;
  entry->swap = bind.length;
  entry->bind_access = bind.access;
  entry->remote_address = bind.address;
  entry->immediate_or_key = next_window_key != 0 ? next_window_key : keys.NewKey();
}

std::string Side::Statuses(CompletionRing* ring) {
  std::string out;
  WorkCompletion wc;
  while (ring->Pop({&wc, 1}) == 1) {
    absl::StrAppend(&out, out.empty() ? "" : ", ", wc.id, " ", WcStatusName(wc.status));
  }
  return out;
}

WorkCompletion Side::NextReceive() {
  WorkCompletion wc{.id = ~0ull, .status = WcStatus::kGeneralError};
  receive_ring.Pop({&wc, 1});
  return wc;
}

WorkCompletion Side::NextSend() {
  WorkCompletion wc{.id = ~0ull, .status = WcStatus::kGeneralError};
  send_ring.Pop({&wc, 1});
  return wc;
}

bool Side::Had(EventType event) const {
  return std::find(events.begin(), events.end(), event) != events.end();
}

// Fills as much of the stream's next place as `max` allows; the bytes taken.
static size_t Receive(QueuePair* qp, std::span<const std::byte> bytes, size_t max, Nanos now) {
  std::array<iovec, kMaxSge + 1> space;
  const int count = qp->ReceiveSpace(space.data(), static_cast<int>(space.size()));
  const size_t most = std::min(max, bytes.size());
  size_t done = 0;
  for (int i = 0; i < count && done < most; ++i) {
    const size_t n = std::min(space[i].iov_len, most - done);
    std::memcpy(space[i].iov_base, bytes.data() + done, n);
    done += n;
  }
  qp->Received(done, now);
  return done;
}

void Side::Feed(std::span<const std::byte> bytes, Chunks chunks, Nanos now) {
  while (!bytes.empty()) bytes = bytes.subspan(Receive(&qp, bytes, chunks.Next(), now));
}

std::vector<std::byte> Side::Drain(bool idle, Nanos now) {
  std::vector<std::byte> out;
  for (;;) {
    const std::span<const iovec> vectors = qp.Gather(idle, now);
    if (vectors.empty()) return out;
    size_t n = 0;
    for (const iovec& v : vectors) {
      const auto* p = static_cast<const std::byte*>(v.iov_base);
      out.insert(out.end(), p, p + v.iov_len);
      n += v.iov_len;
    }
    qp.Sent(n);
  }
}

Memory::Memory(Side* side, size_t size, Access access, uint32_t domain)
    : side_(side), size_(size), words_((size + 7) / 8) {
  region.key = side->keys.NewKey();
  region.domain = domain;
  region.access = access;
  region.host = data();
  region.first = reinterpret_cast<uint64_t>(data());
  region.length = size;
  side->keys.Add(&region);
}

Sge Memory::sge(uint64_t offset, uint32_t length) const {
  const uint32_t n = length == ~0u ? static_cast<uint32_t>(size_ - offset) : length;
  return {region.first + offset, n, region.key};
}

RemoteAddress Memory::at(uint64_t offset) const { return {region.first + offset, region.key}; }

static std::byte Pattern(uint8_t seed, size_t i) {
  return static_cast<std::byte>(seed + i * 7 + (i >> 8) * 13 + 1);
}

void Memory::Fill(uint8_t seed) {
  for (size_t i = 0; i < size_; ++i) data()[i] = Pattern(seed, i);
}

bool Memory::Has(uint8_t seed, size_t offset, size_t n) const {
  const auto* p = reinterpret_cast<const std::byte*>(words_.data()) + offset;
  for (size_t i = 0; i < n; ++i) {
    if (p[i] != Pattern(seed, i)) return false;
  }
  return true;
}

bool Memory::IsZero() const {
  return std::all_of(words_.begin(), words_.end(), [](uint64_t w) { return w == 0; });
}

SendWr Window::Bind(Memory* memory, uint64_t offset, uint64_t length, Access access, uint64_t id) {
  SendWr wr;
  wr.opcode = Opcode::kBindWindow;
  wr.id = id;
  wr.bind.window = reinterpret_cast<MemoryWindow*>(&region_);
  wr.bind.region = reinterpret_cast<MemoryRegion*>(&memory->region);
  wr.bind.address = memory->region.first + offset;
  wr.bind.length = length;
  wr.bind.access = access;
  return wr;
}

Session OwnSession(bool initiator, bool crc, uint32_t depth, QpType type) {
  Session s;
  s.initiator = initiator;
  s.crc = crc;
  s.features.features = FeaturesOf(type);
  s.features.max_payload = uint32_t{wire::kMaxFpduKib} * 1024;
  s.ord = s.ird = depth;
  return s;
}

Session ForeignSession(bool initiator, uint32_t mss, bool crc, uint32_t depth) {
  Session s;
  s.initiator = initiator;
  s.crc = crc;
  s.mss = mss;
  s.ord = s.ird = depth;
  return s;
}

Cable::Cable(Side* a, Side* b, Chunks chunks) : side_{a, b}, chunks_(chunks) {
  for (auto& pipe : pipe_) pipe = std::make_unique_for_overwrite<std::byte[]>(kCapacity);
}

void Cable::Send(int from, bool idle) {
  QueuePair& qp = side_[from]->qp;
  const std::span<const iovec> vectors = qp.Gather(idle, now);
  size_t room = std::min(chunks_.Next(), kCapacity - end_[from]);
  size_t n = 0;
  for (const iovec& v : vectors) {
    const size_t part = std::min(v.iov_len, room);
    std::memcpy(pipe_[from].get() + end_[from], v.iov_base, part);
    end_[from] += part;
    room -= part;
    n += part;
  }
  if (n == 0) return;
  if (keep_) {
    const std::byte* p = pipe_[from].get() + end_[from] - n;
    sent_[from].insert(sent_[from].end(), p, p + n);
  }
  qp.Sent(n);
}

void Cable::Deliver(int from) {
  while (OnTheWay(from) > 0) {
    begin_[from] +=
        Receive(&side_[1 - from]->qp, {pipe_[from].get() + begin_[from], OnTheWay(from)},
                chunks_.Next(), now);
  }
  begin_[from] = end_[from] = 0;
}

void Cable::Cut(int from, int error) {
  begin_[from] = end_[from] = 0;
  side_[1 - from]->qp.ReceiveEnded(error, now);
}

void Cable::Run() {
  for (;;) {
    size_t moved = 0;
    for (int from = 0; from < 2; ++from) {
      side_[from]->qp.Tick(now);
      Send(from);
      moved += OnTheWay(from);
      Deliver(from);
    }
    for (Side* s : side_) s->qp.FlushPosted();
    if (moved == 0) return;
  }
}

std::string Cable::Trace(int from) {
  const std::string text = TraceOf(sent_[from]);
  sent_[from].clear();
  return text;
}

}  // namespace verbena::engine
