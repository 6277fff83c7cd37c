// SPDX-License-Identifier: Apache-2.0
// Packets of any bytes to a queue pair of datagrams: none is answered, what is taken is exactly one
// receive, and no byte beyond a receive is written.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "fallback/datagram/queue_pair.h"
#include "tests/fuzz/input.h"

namespace verbena::fuzz {
namespace {

constexpr uint32_t kDomain = 1;
constexpr uint32_t kNumber = 0xc00180;
constexpr uint32_t kReceives = 4;
constexpr uint32_t kRoom = 64;  // bytes of a receive

class Subject : datagram::Surroundings, engine::CompletionObserver {
 public:
  Subject() : ring_(64, this) {
    region_.key = keys_.NewKey();
    region_.domain = kDomain;
    region_.access = Access::kLocalWrite;
    region_.first = reinterpret_cast<uint64_t>(memory_.data());
    region_.length = memory_.size();
    region_.host = memory_.data();
    keys_.Add(&region_);
    datagram::Config c;
    c.number = kNumber;
    c.domain = c.receive_domain = kDomain;
    c.send_ring = c.receive_ring = &ring_;
    c.keys = &keys_;
    c.surroundings = this;
    qp_ = std::make_unique<datagram::QueuePair>(c);
    (void)qp_->Modify({.state = QpState::kRtr, .qkey = 0x01020304});
    for (uint32_t i = 0; i < kReceives; ++i) {
      const Sge sge{region_.first + i * 2 * kRoom, kRoom, region_.key};
      bool wake = false;
      const ReceiveWr wr{.local = sge, .id = i};
      FUZZ_CHECK(qp_->PostReceive({&wr, 1}, &wake).ok());
    }
  }

  void Receive(std::span<const std::byte> packet, bool group) {
    const std::optional<wire::Datagram> d = wire::DecodeDatagram(packet);
    if (d) {
      const wire::DatagramHeader again = wire::EncodeDatagram(*d);
      FUZZ_CHECK(std::memcmp(&again, packet.data(), sizeof(again)) == 0, "one form of each");
    }
    wire::PacketFacts facts;
    facts.size = static_cast<uint16_t>(packet.size());
    const QpCounters before = qp_->counters();
    qp_->Received(packet, facts, group);
    const QpCounters after = qp_->counters();
    const uint64_t fates = after.receive_completions - before.receive_completions +
                           after.dropped_no_receive - before.dropped_no_receive +
                           after.dropped_qkey - before.dropped_qkey + after.dropped_other -
                           before.dropped_other;
    FUZZ_CHECK(fates == 1);
    WorkCompletion wc;
    while (ring_.Pop({&wc, 1}) == 1) {
      FUZZ_CHECK(wc.ok() && d.has_value());
      FUZZ_CHECK(wc.length == wire::kGrhSize + packet.size() - sizeof(wire::DatagramHeader));
      FUZZ_CHECK(wc.length <= kRoom && wc.source_qp == d->source && d->qkey == 0x01020304);
    }
    for (uint32_t i = 0; i < kReceives; ++i) {
      const auto* const gap = memory_.data() + i * 2 * kRoom + kRoom;
      FUZZ_CHECK(std::all_of(gap, gap + kRoom, [](std::byte b) { return b == std::byte{0}; }));
    }
  }

 private:
  void OnEvent(EventType, const absl::Status&) override {}
  void OnSharedLimit() override {}
  const datagram::Route* RouteOf(const AddressHandle*) const override { return nullptr; }
  void OnNotify() override {}
  void OnPushed() override {}
  void OnOverflow() override {}

  engine::KeyTable keys_;
  engine::CompletionRing ring_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(size_t{kReceives} * 2 * kRoom);
  engine::Region region_;
  std::unique_ptr<datagram::QueuePair> qp_;
};

void Run(Input input) {
  Subject subject;
  while (!input.empty()) {
    const uint8_t bits = input.Byte();
    std::vector<std::byte> packet;
    // Most inputs should come past the header.
    if ((bits & 1) != 0) {
      wire::Datagram d;
      d.source = static_cast<uint32_t>(input.Number(3));
      d.destination = (bits & 2) != 0 ? datagram::kGroupNumber : kNumber;
      d.qkey = (bits & 4) != 0 ? static_cast<uint32_t>(input.Number(4)) : 0x01020304;
      if ((bits & 8) != 0) d.immediate = static_cast<uint32_t>(input.Number(4));
      const wire::DatagramHeader header = wire::EncodeDatagram(d);
      const auto bytes = wire::AsBytes(header);
      packet.assign(bytes.begin(), bytes.end());
    }
    const auto more = input.Take(input.Byte());
    packet.insert(packet.end(), more.begin(), more.end());
    subject.Receive(packet, (bits & 16) != 0);
  }
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
