// SPDX-License-Identifier: Apache-2.0
#include "fallback/datagram_queue_pair.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "fallback/address_handle.h"
#include "transport/completion_queue.h"
#include "transport/datagram.h"
#include "transport/protection_domain.h"
#include "transport/shared_receive_queue.h"

namespace verbena::fallback {
namespace {

using provider::Of;

datagram::Config Surrounded(datagram::Config config, datagram::Surroundings* surroundings) {
  config.surroundings = surroundings;
  return config;
}

constexpr int kCallsPerDrive = 8;  // of each direction, so that a drive stays short

}  // namespace

absl::StatusOr<std::unique_ptr<provider::QueuePair>> DatagramQueuePair::Create(
    ProtectionDomain* domain, const QueuePairOptions& options, const Ip& own) {
  Device* const device = domain->device();
  for (const absl::Status& s :
       {provider::CheckQueues<CompletionQueue, SharedReceiveQueue>(options, device),
        provider::CheckQueueLimits(options.limits, Device::Attributes(), "tcp")}) {
    if (!s.ok()) return s;
  }
  io::World& world = device->hub().world();
  if (world.datagrams() == nullptr) return domain->NoDatagrams();
  const absl::StatusOr<io::Socket> socket = world.datagrams()->Open(0, false);
  if (!socket.ok()) return socket.status();
  uint8_t random = 0;
  world.Random({&random, 1});
  auto* const send_cq = Of<CompletionQueue>(options.send_cq);
  auto* const srq = Of<SharedReceiveQueue>(options.shared_receive_queue);
  datagram::Config c;
  c.number = datagram::NumberOf(world.streams().Local(*socket).port(), random);
  c.domain = domain->number();
  c.receive_domain = srq != nullptr ? srq->domain()->number() : c.domain;
  c.limits = provider::WithDefaults(options.limits, Device::Attributes());
  c.signal_all = options.signal == Signal::kAll;
  c.send_ring = &send_cq->ring();
  c.receive_ring = &Of<CompletionQueue>(options.receive_cq)->ring();
  c.shared_receives = srq != nullptr ? &srq->queue() : nullptr;
  c.keys = &device->keys();
  return std::make_unique<DatagramQueuePair>(domain, options, own, *socket, c);
}

DatagramQueuePair::DatagramQueuePair(ProtectionDomain* domain, const QueuePairOptions& options,
                                     const Ip& own, io::Socket socket,
                                     const datagram::Config& config)
    : Driven(domain->device(), Of<CompletionQueue>(options.send_cq),
             Of<CompletionQueue>(options.receive_cq)),
      domain_(domain),
      srq_(Of<SharedReceiveQueue>(options.shared_receive_queue)),
      context_(options.context),
      own_(own),
      core_(Surrounded(config, this)),
      room_(new std::byte[kPackets * kPacketRoom]) {
  socket_ = socket;
  domain_->children().Add();
  send_cq_->Join(this);
  if (receive_cq_ != send_cq_) receive_cq_->Join(this);
  if (srq_ != nullptr) srq_->Join(this);
  device_->Register(this);
  device_->hub().Add(this);
  send_cq_->StreamBegins();
  if (receive_cq_ != send_cq_) receive_cq_->StreamBegins();
  WithOwnership([this] { device_->hub().Watch(this, socket_, true, false); });
}

DatagramQueuePair::~DatagramQueuePair() { domain_->children().Remove(); }

absl::Status DatagramQueuePair::Close() {
  std::unique_ptr<GroupSocket> groups;
  WithOwnership([&] {
    groups = std::move(groups_);
    Unwatch();
    wanted_set_.store(nullptr, std::memory_order_relaxed);
    send_cq_->StreamEnds();
    if (receive_cq_ != send_cq_) receive_cq_->StreamEnds();
    device_->hub().streams().Close(std::exchange(socket_, io::kNoSocket), false);
    word_.fetch_or(kDead, std::memory_order_acq_rel);
  });
  groups.reset();  // not as the owner: it waits for the service, which may be about to note
  device_->hub().Remove(this);
  device_->Unregister(this);
  send_cq_->ring().Forget(number());
  receive_cq_->ring().Forget(number());
  device_->Forget(this);
  // At last: they may be closed, and gone, as soon as nothing is on them.
  send_cq_->Leave(this);
  if (receive_cq_ != send_cq_) receive_cq_->Leave(this);
  if (srq_ != nullptr) srq_->Leave(this);
  return absl::OkStatus();
}

// --- hot path

const datagram::Route* DatagramQueuePair::RouteOf(const verbena::AddressHandle* handle) const {
  if (handle == nullptr || !handle->is_open()) return nullptr;
  const provider::AddressHandle* const impl = handle->impl();
  if (impl->device() != device_) return nullptr;
  return &static_cast<const AddressHandle*>(impl)->route();
}

PostResult DatagramQueuePair::PostSend(std::span<const SendWr> requests) {
  const PostResult result = core_.PostSend(requests);
  if (result.accepted > 0) Drive(Why::kPost);
  return result;
}

PostResult DatagramQueuePair::PostReceive(std::span<const ReceiveWr> requests) {
  bool wake = false;
  const PostResult result = core_.PostReceive(requests, &wake);
  if (wake) Drive(Why::kPost);
  return result;
}

void DatagramQueuePair::Work(Why why, Nanos now) {
  if (dead()) return;
  if (TakeFailure()) {
    core_.Fail(absl::ResourceExhaustedError("a completion queue of this queue pair overflowed"));
  }
  const bool poller = why == Why::kPoll && hot_;
  bool busy = false;
  if (why != Why::kPost) {
    if (now == 0) now = device_->hub().Now();
    if (poller) Served(now);
    busy = ReceiveSome(socket_, false);
    if (groups_ != nullptr) busy |= ReceiveSome(groups_->socket(), true);
  }
  busy |= SendSome();
  core_.FlushPosted();
  if (busy) last_traffic_ = now != 0 ? now : device_->hub().Now();
  if (drain_watched_.load(std::memory_order_seq_cst) && core_.outstanding() == 0) {
    drain_watched_.store(false, std::memory_order_relaxed);
    device_->hub().world().Changed();
  }
  ChooseWatcher(why, now, false);
}

// A short batch says that no more was there.
bool DatagramQueuePair::ReceiveSome(io::Socket socket, bool groups) {
  std::array<io::Incoming, kPackets> in;
  for (int call = 0; call < kCallsPerDrive; ++call) {
    for (size_t i = 0; i < kPackets; ++i) {
      in[i] = {};
      in[i].into = {room_.get() + i * kPacketRoom, kPacketRoom};
    }
    const int n = datagrams().Receive(socket, in);
    if (n <= 0) return call > 0;
    core_.CountReceiveCall();
    for (const io::Incoming& packet : std::span(in).first(static_cast<size_t>(n))) {
      const bool for_us = groups ? groups_->joined.count(packet.to) != 0 : IsOwn(packet.to);
      if (packet.cut || !for_us) {
        core_.Dropped();
        continue;
      }
      wire::PacketFacts facts;
      facts.source = packet.from;
      facts.destination = packet.to;
      facts.traffic_class = packet.traffic_class;
      facts.hop_limit = packet.hop_limit;
      facts.size = static_cast<uint16_t>(packet.size);
      core_.Received(std::span<const std::byte>(packet.into).first(packet.size), facts, groups);
    }
    if (static_cast<size_t>(n) < kPackets) return true;
  }
  return true;
}

bool DatagramQueuePair::SendSome() {
  std::array<io::Outgoing, datagram::QueuePair::kBatch> out;
  bool sent = false;
  want_write_ = false;
  for (int call = 0; call < kCallsPerDrive; ++call) {
    const std::span<const datagram::Parcel> parcels = core_.Gather();
    if (parcels.empty()) return sent;
    for (size_t i = 0; i < parcels.size(); ++i) {
      const datagram::Parcel& p = parcels[i];
      out[i].to = {.ip = p.to.ip, .scope = p.to.scope, .port = p.port};
      out[i].from = own_;
      out[i].traffic_class = p.to.traffic_class;
      out[i].hop_limit = p.to.hop_limit;
      out[i].pieces = p.pieces;
    }
    const int n = datagrams().Send(socket_, std::span(out).first(parcels.size()));
    if (n <= 0) break;
    size_t bytes = 0;
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      for (const iovec& piece : parcels[i].pieces) bytes += piece.iov_len;
    }
    core_.CountSendCall(bytes);
    core_.Sent(static_cast<size_t>(n));
    sent = true;
  }
  want_write_ = true;
  return sent;
}

void DatagramQueuePair::OnReady(bool, bool) {
  // The level is reported again at once: on a single core that would starve the owner.
  if (!Drive(Why::kReady)) sched_yield();
}

void DatagramQueuePair::OnTick() {
  if (!TryOwn()) return;
  const Nanos now = device_->hub().Now();
  if (hot_ && Neglected(now)) {
    WorkAndRelease(Why::kHandOver, now);
  } else if (want_write_) {  // hot: nobody else looks whether there is room
    WorkAndRelease(Why::kPost, now);
  } else {
    Release();
  }
}

// --- control path

absl::Status DatagramQueuePair::Modify(const QpModify& change) {
  absl::Status result;
  std::unique_ptr<GroupSocket> groups;
  WithOwnership([&] {
    if (change.state == QpState::kReset) groups = std::move(groups_);
    result = core_.Modify(change);
  });
  device_->hub().world().Changed();
  return result;
}

QpAttributes DatagramQueuePair::Query() const {
  drain_watched_.store(true, std::memory_order_seq_cst);  // see QueuePair::Query
  return core_.Query();
}

Capabilities DatagramQueuePair::capabilities() const {
  Capabilities c;
  c.immediate = c.unguessable_keys = c.lazy_registration = c.peer_counters = true;
  c.traffic_class = c.unreliable_datagram = true;
  return c;
}

void DatagramQueuePair::OnEvent(EventType type, const absl::Status& why) {
  Event e;
  e.type = type;
  e.context = context_;
  e.qp_number = number();
  e.status = why;
  device_->Push(this, std::move(e));
}

absl::Status DatagramQueuePair::AttachMulticast(const std::string& group) {
  const absl::StatusOr<Ip> ip = provider::ParseGroup("attach multicast", group);
  return ip.ok() ? Attach(*ip) : ip.status();
}

absl::Status DatagramQueuePair::DetachMulticast(const std::string& group) {
  const absl::StatusOr<Ip> ip = provider::ParseGroup("detach multicast", group);
  return ip.ok() ? Detach(*ip) : ip.status();
}

absl::Status DatagramQueuePair::Attach(const Ip& group) {
  const std::lock_guard lock(attach_mutex_);
  // Made before it is known whether it is needed, since allocating is not for an owner.
  const absl::StatusOr<io::Socket> socket = datagrams().Open(datagram::kGroupPort, true);
  if (!socket.ok()) return socket.status();
  auto made = std::make_unique<GroupSocket>(this, *socket);
  absl::Status result;
  WithOwnership([&] {
    if (groups_ == nullptr) groups_ = std::move(made);
    if (groups_->joined.count(group) != 0) return;  // ibv_attach_mcast(3): nothing changes
    result = datagrams().Join(groups_->socket(), group, own_);
    if (result.ok()) groups_->joined.insert(group);
  });
  return result;
}

absl::Status DatagramQueuePair::Detach(const Ip& group) {
  const std::lock_guard lock(attach_mutex_);
  absl::Status result;
  WithOwnership([&] {
    if (groups_ == nullptr || groups_->joined.erase(group) == 0) {
      result = provider::NotAttached();
      return;
    }
    (void)datagrams().Leave(groups_->socket(), group, own_);
  });
  return result;
}

DatagramQueuePair::GroupSocket::GroupSocket(DatagramQueuePair* owner, io::Socket socket)
    : owner_(owner), socket_(socket) {
  Hub& hub = owner_->device_->hub();
  hub.Add(this);
  hub.Watch(this, socket_, true, false);
}

DatagramQueuePair::GroupSocket::~GroupSocket() {
  Hub& hub = owner_->device_->hub();
  hub.poller().Unwatch(socket_);
  hub.Remove(this);
  hub.streams().Close(socket_, false);
}

void DatagramQueuePair::GroupSocket::OnReady(bool, bool) {
  if (!owner_->Drive(Why::kReady)) sched_yield();
}

}  // namespace verbena::fallback
